"""From records to ``summary.json``: every metric with its spread, methods side by side, errors by kind of pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from coopmap.evaluation.frames import FrameList
from coopmap.evaluation.records import METHODS, PAIR_ERRORS, SampleRecord
from coopmap.evaluation.statistics import LEVEL, RESAMPLES, clusters, summarize
from coopmap.metrics.aggregate import GROUPINGS, Grouping
from coopmap.metrics.pose import recalls

HEADING = Grouping("heading (deg)", "heading_deg", "heading_{}deg", ((0, 30), (30, 150), (150, 180.1)))
"""Same direction, crossing, opposite directions."""
ALL_GROUPINGS = (*GROUPINGS, HEADING)
SUCCESS_M, SUCCESS_DEG = 2.0, 5.0

INPUT_NAMES = {"rays": "calibrated rays", "depth": "measured depth", "pose": "poses", "rig": "calibrated rig"}


@dataclass(frozen=True)
class Conditions:
    """Conditions under which metrics were obtained.

    Attributes:
        origin: of the weights, and the overrides.
        split: measured on.
        frames: measured on instead.
        asked_for: requested inputs, in words.
        views: number of views that the model received.
        given: number of these that came with each geometric input.
        num_requested, num_available: samples to be measured, and usable frames of the split.
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
        "unreadable": list(conditions.unreadable),
        "pairs": len(pairs),
        "bootstrap": {"drawn": pairs.unit, "resamples": RESAMPLES, "level": LEVEL, "seed": seed},
        "notes": dict(conditions.notes),
        "seconds": round(conditions.seconds, 1),
        "methods": _methods(records, pairs, seed),
        "published": [vars(line) for line in frames.published] if frames is not None else [],
        "published_conditions": frames.published_conditions if frames is not None else "",
        "breakdown": _breakdown(records, pairs, seed),
        "figures": _sample_figures(records, seed),
    }


def _methods(records: Sequence[SampleRecord], pairs: PairTable, seed: int) -> dict[str, dict[str, Any]]:
    """Errors of each method over the pairs for which it has a pose, and the share of these within common thresholds."""
    table: dict[str, dict[str, Any]] = {}
    for method, answered in applied_to(records, pairs).items():
        trans_m, rot_deg = (pairs.columns[method_column(method, column)][answered] for column in PAIR_ERRORS)
        values = {"trans_m": trans_m, "rot_deg": rot_deg} | recalls(trans_m, rot_deg)
        table[method] = {name: summarize(column, pairs.cluster[answered], seed) for name, column in values.items()}
    return table


def _breakdown(records: Sequence[SampleRecord], pairs: PairTable, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Errors by properties of the pair: the model's with intervals, under ``methods`` those of all methods without."""
    columns = {
        method: (*(pairs.columns[method_column(method, column)] for column in PAIR_ERRORS), answered)
        for method, answered in applied_to(records, pairs).items()
    }
    return {
        grouping.title: [
            {"bin": text, "pairs": int(members.sum())}
            | {
                column: summarize(pairs.columns[column][members], pairs.cluster[members], seed)
                for column in PAIR_ERRORS
            }
            | {
                "methods": {
                    method: _short(trans_m[members & answered], rot_deg[members & answered])
                    for method, (trans_m, rot_deg, answered) in columns.items()
                }
            }
            for _, text, members in grouping.groups(pairs.columns)
        ]
        for grouping in ALL_GROUPINGS
    }


def applied_to(records: Sequence[SampleRecord], pairs: PairTable) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which pairs are of samples that a method was applied to, by method."""
    names = {method: method_column(method, PAIR_ERRORS[0]) for method in METHODS}
    return {
        method: np.array([name in record.pairs for record in records])[pairs.owner]
        for method, name in names.items()
        if name in pairs.columns
    }


def _short(trans_m: Float[np.ndarray, " n"], rot_deg: Float[np.ndarray, " n"]) -> dict[str, float | int | None]:
    """Medians over the pairs that have a pose, and the share of all pairs that are right."""
    known = np.isfinite(trans_m)
    right = (trans_m <= SUCCESS_M) & (rot_deg <= SUCCESS_DEG)
    return {
        "pairs": len(trans_m),
        "count": int(known.sum()),
        "trans_m_median": float(np.median(trans_m[known])) if known.any() else None,
        "rot_deg_median": float(np.median(rot_deg[known])) if known.any() else None,
        "recall_2m_5deg": float(right.mean()) if len(right) else None,
    }


def _sample_figures(records: Sequence[SampleRecord], seed: int) -> dict[str, Any]:
    """Every metric over samples."""
    names = dict.fromkeys(name for record in records for name in record.figures)
    cluster: Int[np.ndarray, " n"]
    cluster, _ = clusters([record.meta.scenario for record in records], range(len(records)))
    columns = {name: np.array([record.figures.get(name, np.nan) for record in records]) for name in names}
    return {name: summarize(column, cluster, seed) for name, column in columns.items()}
