"""From records to ``summary.json``: every metric with its spread, methods side by side, errors by kind of pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from coopmap.evaluation.confidence import WITHIN, confidence_summary
from coopmap.evaluation.frames import FrameList
from coopmap.evaluation.probes.summary import probe_summary
from coopmap.evaluation.records import METHODS, PAIR_ERRORS, SampleRecord
from coopmap.evaluation.statistics import LEVEL, RESAMPLES, clusters, summarize
from coopmap.metrics.aggregate import COVISIBLE, GROUPINGS, HEADINGS, QUANTILES, statistic
from coopmap.metrics.pose import recalls

STREETS = {"style": "style of street", "hard": "hard street"}
"""Titles of the breakdowns by what scenarios say of their streets."""
INPUT_NAMES = {
    "rays": "calibrated rays",
    "depth": "measured depth",
    "pose": "poses",
    "rig": "calibrated rig",
    "gravity": "directions of gravity",
}


@dataclass(frozen=True)
class Conditions:
    """Conditions under which metrics were obtained.

    Attributes:
        origin: of the weights, the place of the data, and the overrides.
        split: measured on.
        frames: measured on instead.
        asked_for: requested inputs, in words.
        views: number of views that the model received.
        given: number of these that came with each geometric input.
        num_requested, num_available: samples to be measured, and usable frames of the split.
        num_too_few, min_agents: frames with fewer agents in range than this, which are not usable.
        unreadable: files, with the reason.
        notes: about methods that are absent or incomplete.
        seconds: duration of the evaluation.
    """

    origin: Mapping[str, Any]
    split: str
    frames: FrameList | None
    asked_for: str
    views: int
    given: Mapping[str, int]
    num_requested: int
    num_available: int
    num_too_few: int
    min_agents: int
    unreadable: Sequence[str]
    notes: Mapping[str, str]
    seconds: float

    def inputs_received(self) -> str:
        """What the model received besides images, as counted in its inputs: ``images``, ``images + poses``."""
        parts = ["images"]
        for name, count in self.given.items():
            if count:
                share = "" if count == self.views else f" (of {count / self.views:.0%} of the views)"
                parts.append(INPUT_NAMES[name] + share)
        return " + ".join(parts)


class PairTable:
    """All pairs of all samples as columns; NaN where a sample lacks one."""

    def __init__(self, records: Sequence[SampleRecord]) -> None:
        counts = [len(record.pairs["i"]) for record in records]
        names = dict.fromkeys(name for record in records for name in record.pairs)
        self.columns: dict[str, Float[np.ndarray, " n"]] = {
            name: np.array(
                [v for record, n in zip(records, counts, strict=True) for v in record.pairs.get(name, [np.nan] * n)],
                dtype=np.float64,
            )
            for name in names
        }
        self.owner: Int[np.ndarray, " n"] = np.repeat(np.arange(len(records)), counts)
        self.cluster, self.unit = clusters([records[i].meta.scenario for i in self.owner], self.owner.tolist())

    def __len__(self) -> int:
        return len(self.owner)


def method_column(method: str, column: str) -> str:
    """Column of a method in the tables of samples and pairs."""
    return column if method == "model" else f"{method}_{column}"


def summarize_records(records: Sequence[SampleRecord], conditions: Conditions, seed: int = 0) -> dict[str, Any]:
    """Content of ``summary.json``.

    Args:
        records: of all samples.
        conditions: of the measurement.
        seed: of the bootstrap.
    """
    pairs = PairTable(records)
    frames = conditions.frames
    return {
        **conditions.origin,
        "split": conditions.split if frames is None else None,
        "frames": None if frames is None else {"file": str(frames.file), "sha256": frames.sha256, "name": frames.name},
        "inputs_asked_for": conditions.asked_for,
        "inputs": conditions.inputs_received(),
        "samples": len(records),
        "requested_samples": conditions.num_requested,
        "usable_frames": conditions.num_available,
        "frames_with_too_few_agents": conditions.num_too_few,
        "unreadable": list(conditions.unreadable),
        "pairs": len(pairs),
        "bootstrap": {"drawn": pairs.unit, "resamples": RESAMPLES, "level": LEVEL, "seed": seed},
        "notes": dict(conditions.notes),
        "seconds": round(conditions.seconds, 1),
        "methods": _methods(records, pairs, seed),
        "published": [vars(line) for line in frames.published] if frames is not None else [],
        "published_conditions": frames.published_conditions if frames is not None else "",
        "overall": _overall(records, pairs, seed),
        "breakdown": _breakdown(records, pairs, seed),
        "confidence": confidence_summary(pairs.columns, pairs.cluster, seed),
        "probes": probe_summary(pairs.columns, pairs.cluster, seed),
        "figures": _sample_figures(records, seed),
    }


def _methods(records: Sequence[SampleRecord], pairs: PairTable, seed: int) -> dict[str, dict[str, Any]]:
    """Errors of each method over the pairs for which it has an answer, infinite where that is not finite; the share of
    all within common thresholds, and the share that have a finite answer (``apply_rate``).
    """
    table: dict[str, dict[str, Any]] = {}
    for method, answered in applied_to(records, pairs).items():
        trans_m, rot_deg = (pairs.columns[method_column(method, column)][answered] for column in PAIR_ERRORS)
        values = {"trans_m": trans_m, "rot_deg": rot_deg} | recalls(trans_m, rot_deg)
        values["apply_rate"] = np.isfinite(trans_m).astype(np.float64)
        table[method] = {name: summarize(column, pairs.cluster[answered], seed) for name, column in values.items()}
    return table


def applied_to(records: Sequence[SampleRecord], pairs: PairTable) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which pairs are of samples that a method was applied to, by method."""
    names = {method: method_column(method, PAIR_ERRORS[0]) for method in METHODS}
    return {
        method: np.array([name in record.pairs for record in records])[pairs.owner]
        for method, name in names.items()
        if name in pairs.columns
    }


def _overall(records: Sequence[SampleRecord], pairs: PairTable, seed: int) -> list[dict[str, Any]]:
    """All pairs, and those that share enough."""
    shared = pairs.columns.get("covisibility", np.full(len(pairs), np.nan))
    chosen = {"all": np.ones(len(pairs), bool), f"co-visibility over {COVISIBLE:.0%}": shared > COVISIBLE}
    applied = applied_to(records, pairs)
    return [_kind_of_pair(pairs, applied, text, members, seed) for text, members in chosen.items()]


def _breakdown(records: Sequence[SampleRecord], pairs: PairTable, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Errors and successes by properties of the pair, and of its street where there are several kinds."""
    applied = applied_to(records, pairs)
    kinds = {
        grouping.title: [(text, members) for _, text, members in grouping.groups(pairs.columns)]
        for grouping in (*GROUPINGS, HEADINGS)
    }
    return {
        title: [_kind_of_pair(pairs, applied, text, members, seed) for text, members in groups]
        for title, groups in (kinds | _kinds_of_streets(records, pairs)).items()
    }


def _kinds_of_streets(
    records: Sequence[SampleRecord], pairs: PairTable
) -> dict[str, list[tuple[str, Bool[np.ndarray, " n"]]]]:
    """Name and pairs of each kind, by title."""
    found = {}
    for fact, title in STREETS.items():
        of_record = np.array([record.street.get(fact, "not stated") for record in records], dtype=np.str_)
        of_pair = of_record[pairs.owner]
        found[title] = [(str(kind), of_pair == kind) for kind in np.unique(of_pair)]
    return {title: groups for title, groups in found.items() if len(groups) > 1}


def _kind_of_pair(
    pairs: PairTable,
    applied: Mapping[str, Bool[np.ndarray, " n"]],
    text: str,
    members: Bool[np.ndarray, " n"],
    seed: int,
) -> dict[str, Any]:
    """Errors of some pairs and their shares within limits: the model's with intervals, all ``methods``' without."""
    values = {column: pairs.columns[column][members] for column in PAIR_ERRORS}
    within = recalls(values["trans_m"], values["rot_deg"])
    values |= {name: within[name].astype(np.float64) for name in WITHIN}
    summaries = {name: summarize(column, pairs.cluster[members], seed) for name, column in values.items()}
    methods = {method: _of_method(pairs, method, members & known) for method, known in applied.items()}
    return {"bin": text, "pairs": int(members.sum()), **summaries, "methods": methods}


def _of_method(pairs: PairTable, method: str, members: Bool[np.ndarray, " n"]) -> dict[str, float | int | None]:
    """Percentiles over the pairs that have an answer, the share that have a finite one, and the shares of all that are
    right.
    """
    trans_m, rot_deg = (pairs.columns[method_column(method, column)][members] for column in PAIR_ERRORS)
    known = ~np.isnan(trans_m)
    right = recalls(trans_m, rot_deg)
    return {
        "pairs": len(trans_m),
        "count": int(known.sum()),
        "apply_rate": float(np.isfinite(trans_m).mean()) if len(known) else None,
        **{
            f"{column}_{name}": statistic(name, values[known]) if known.any() else None
            for column, values in (("trans_m", trans_m), ("rot_deg", rot_deg))
            for name in QUANTILES
        },
        **{name: float(right[name].mean()) if len(trans_m) else None for name in WITHIN},
    }


def _sample_figures(records: Sequence[SampleRecord], seed: int) -> dict[str, Any]:
    """Every metric over samples."""
    names = dict.fromkeys(name for record in records for name in record.figures)
    cluster: Int[np.ndarray, " n"]
    cluster, _ = clusters([record.meta.scenario for record in records], range(len(records)))
    columns = {name: np.array([record.figures.get(name, np.nan) for record in records]) for name in names}
    return {name: summarize(column, cluster, seed) for name, column in columns.items()}
