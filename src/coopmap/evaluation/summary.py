"""From records to ``summary.json``: every figure with its spread, methods side by side, errors by circumstance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from coopmap.evaluation.frames import FrameList
from coopmap.evaluation.records import METHODS, PAIR_ERRORS, SampleRecord
from coopmap.evaluation.statistics import LEVEL, RESAMPLES, clusters, summarize
from coopmap.metrics.breakdown import COVISIBILITY_BINS_PERCENT, DISTANCE_BINS_M
from coopmap.metrics.pose import RECALLS_M_DEG

INPUT_NAMES = {"rays": "calibrated rays", "depth": "measured depth", "pose": "poses", "rig": "calibrated rig"}


@dataclass(frozen=True)
class Conditions:
    """Under which figures were obtained.

    Attributes:
        origin: of the weights, and the overrides.
        split: measured on.
        frames: measured on instead.
        asked_for: inputs, in words.
        views: number of views that the model received.
        given: number of these that came with each geometric input.
        num_requested, num_available: samples to be measured, and usable frames of the split.
        unreadable: files, with the reason.
        notes: about methods that are absent or incomplete.
        seconds: that it took.
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
        """What the model received beside images, as counted at its door: ``images``, ``images + poses``."""
        parts = ["images"]
        for name, count in self.given.items():
            if count:
                share = "" if count == self.views else f" (of {count / self.views:.0%} of the views)"
                parts.append(INPUT_NAMES[name] + share)
        return " + ".join(parts)


class PairTable:
    """All pairs of all samples as columns."""

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
        owners = [number for number, count in enumerate(counts) for _ in range(count)]
        scenarios = [records[i].meta.scenario for i in owners]
        self.num_agents = np.array([len(records[i].agents) for i in owners])
        self.cluster, self.unit = clusters(scenarios, owners)

    def __len__(self) -> int:
        return len(self.num_agents)


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
        "methods": _methods(pairs, seed),
        "published": [vars(line) for line in frames.published] if frames is not None else [],
        "published_conditions": frames.published_conditions if frames is not None else "",
        "breakdown": _breakdown(pairs, seed),
        "figures": _sample_figures(records, seed),
    }


def _methods(pairs: PairTable, seed: int) -> dict[str, dict[str, Any]]:
    """Errors of each method over all pairs, and the share of pairs within common limits."""
    table: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        names = [method_column(method, column) for column in PAIR_ERRORS]
        if any(name not in pairs.columns for name in names):
            continue
        trans_m, rot_deg = (pairs.columns[name] for name in names)
        values = dict(zip(PAIR_ERRORS, (trans_m, rot_deg), strict=True))
        for meters, degrees in RECALLS_M_DEG:
            within = ((trans_m <= meters) & (rot_deg <= degrees)).astype(np.float64)
            values[f"recall_{meters}m_{degrees}deg"] = np.where(np.isfinite(trans_m), within, np.nan)
        table[method] = {name: summarize(column, pairs.cluster, seed) for name, column in values.items()}
    return table


def _breakdown(pairs: PairTable, seed: int) -> dict[str, list[dict[str, Any]]]:
    """The model's errors by distance, number of agents and co-visibility of the pair."""
    distance = pairs.columns["distance_m"]
    shared = 100 * pairs.columns["covisibility"]
    groups: dict[str, dict[str, Bool[np.ndarray, " n"]]] = {
        "distance (m)": {_range(low, high): (distance >= low) & (distance < high) for low, high in DISTANCE_BINS_M},
        "number of agents": {f"{n}": pairs.num_agents == n for n in np.unique(pairs.num_agents)},
        "co-visibility (%)": {
            _range(low, high): (shared >= low) & (shared < high) for low, high in COVISIBILITY_BINS_PERCENT
        },
    }
    return {
        subject: [
            {"bin": label, "pairs": int(members.sum())}
            | {
                column: summarize(pairs.columns[column][members], pairs.cluster[members], seed)
                for column in PAIR_ERRORS
            }
            for label, members in bins.items()
        ]
        for subject, bins in groups.items()
    }


def _range(low: float, high: float) -> str:
    return f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def _sample_figures(records: Sequence[SampleRecord], seed: int) -> dict[str, Any]:
    """Every figure over samples."""
    names = dict.fromkeys(name for record in records for name in record.figures)
    cluster: Int[np.ndarray, " n"]
    cluster, _ = clusters([record.meta.scenario for record in records], range(len(records)))
    columns = {name: np.array([record.figures.get(name, np.nan) for record in records]) for name in names}
    return {name: summarize(column, cluster, seed) for name, column in columns.items()}
