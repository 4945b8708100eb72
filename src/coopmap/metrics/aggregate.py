"""From rows to the metrics of a split, for training logs and evaluations alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from coopmap.metrics.dense import (
    DEPTH_NAMES,
    DEPTH_RANGE_NAMES,
    MASK_NAMES,
    MOTION_NAMES,
    SCALE_NAMES,
    SCALE_RANGE_NAMES,
)
from coopmap.metrics.matching import CELL_NAMES, MATCH_COLUMNS
from coopmap.metrics.pose import AUC_NAME, recalls
from coopmap.metrics.reduce import bin_label, in_bin, quantile
from coopmap.metrics.trajectory import TRAJECTORY_NAMES

Columns = Mapping[str, Float[np.ndarray, " n"]]

PAIR_COLUMNS = ("num_agents", "distance_m", "covisibility", "trans_m", "rot_deg", *MATCH_COLUMNS)
"""Columns of pairs that are aggregated, if present."""
REQUIRED = (AUC_NAME, *SCALE_NAMES, *DEPTH_NAMES, *MASK_NAMES)
"""Columns of samples that become metrics: NaN if no sample defines them."""
OPTIONAL = (*TRAJECTORY_NAMES, *SCALE_RANGE_NAMES, *DEPTH_RANGE_NAMES, *MOTION_NAMES, *CELL_NAMES, "covisibility")
"""The same, left out if no sample defines them."""
SAMPLE_COLUMNS = REQUIRED + OPTIONAL

PAIR_STATISTICS = {"trans_m": ("mean", "median", "p90", "p95"), "rot_deg": ("mean", "median")}
MATCH_STATISTICS = dict.fromkeys(MATCH_COLUMNS, ("mean",)) | {
    "matches_kept": ("median",),
    "aligned_trans_m": ("median",),
    "aligned_rot_deg": ("median",),
    "aligned_mahalanobis": ("median",),
}
"""Of what a model that matches says of pairs; a value that is not known, of a single pair, does not count."""
EXPECTED = ("confidence", "covisibility_pred")
"""Known of every pair: NaN is what the model says, and so is the mean."""
COVISIBLE = 0.2
"""Pairs that share more than this have something to go by; their errors are stated apart."""
COVISIBLE_STATISTICS = {"trans_m": ("median",), "rot_deg": ("median",)}
GROUP_STATISTICS = {"trans_m": ("mean", "median"), "rot_deg": ("mean",)}
SAMPLE_STATISTICS = {"scale_ratio": ("mean", "median")}
"""All other columns of samples are averaged under the column's name."""

QUANTILES = {"median": 0.5, "p90": 0.9, "p95": 0.95}


@dataclass(frozen=True)
class Grouping:
    """Sorts pairs into groups by one of their columns.

    Attributes:
        title: in reports.
        column: to group by.
        name: of a group in the log; ``{}`` is its range or value.
        bins: ranges [low, high); by default, each value that occurs is a group.
        factor: from the column's unit to that of ``bins``.
        kinds: what reports call the ranges, if they have names.
    """

    title: str
    column: str
    name: str
    bins: tuple[tuple[float, float], ...] = ()
    factor: float = 1.0
    kinds: tuple[str, ...] = ()

    def groups(self, pairs: Columns) -> Iterator[tuple[str, str, Bool[np.ndarray, " n"]]]:
        """Name in the log, name in reports and members of each group, empty ones too."""
        values = self.factor * pairs[self.column]
        for number, (low, high) in enumerate(self.bins):
            text = f"over {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
            text = f"{self.kinds[number]}: {text}" if self.kinds else text
            yield self.name.format(bin_label(low, high)), text, in_bin(values, low, high)
        for value in () if self.bins else np.unique(values):
            yield self.name.format(f"{value:g}"), f"{value:g}", values == value


HEADINGS = Grouping(
    "difference of headings (deg)",
    "heading_deg",
    "heading_{}deg",
    ((0, 45), (45, 135), (135, np.inf)),
    kinds=("same", "crossing", "opposite"),
)
"""In evaluations only."""
GROUPINGS = (
    Grouping("distance (m)", "distance_m", "{}m", ((0, 10), (10, 20), (20, 30), (30, 50), (50, 70), (70, np.inf))),
    Grouping("number of agents", "num_agents", "{}_agents"),
    Grouping("co-visibility (%)", "covisibility", "covisible_{}", ((0, 5), (5, 20), (20, 50), (50, np.inf)), 100),
)


def aggregate(samples: Columns, pairs: Columns) -> dict[str, float]:
    """The metrics of a split for which there are columns.

    Args:
        samples: values of all samples; NaN ones do not count.
        pairs: values of all pairs of agents, pooled. Errors of predictions that are not finite are infinite: so is the
            mean, they are within no threshold, and quantiles count them as the largest.
    """
    figures = _pair_figures(pairs)
    for name in SAMPLE_COLUMNS:
        if name in samples:
            figures |= _sample_figures(name, samples[name])
    return figures


def statistic(name: str, values: Float[np.ndarray, " n"]) -> float:
    """``mean``, which NaN makes NaN, or a quantile of the other values; NaN for none."""
    if name != "mean":
        values = values[~np.isnan(values)]
    if not len(values):
        return float("nan")
    return float(np.mean(values)) if name == "mean" else quantile(values, QUANTILES[name])


def _pair_figures(pairs: Columns) -> dict[str, float]:
    figures = {
        f"{column}_{name}": statistic(name, pairs[column])
        for column, names in PAIR_STATISTICS.items()
        for name in names
    }
    for name, within in recalls(pairs["trans_m"], pairs["rot_deg"]).items():
        figures[name] = statistic("mean", within.astype(np.float64))
    figures |= _covisible_figures(pairs) if "covisibility" in pairs else {}
    figures |= _match_figures(pairs)
    for grouping in GROUPINGS:
        for group, _, members in grouping.groups(pairs) if grouping.column in pairs else ():
            if members.any():
                inside = {column: pairs[column][members] for column in GROUP_STATISTICS}
                figures |= {f"{name}_{group}": value for name, value in _statistics(GROUP_STATISTICS, inside).items()}
                figures[f"pairs_{group}"] = float(members.sum())
    return figures


def _covisible_figures(pairs: Columns) -> dict[str, float]:
    """Errors of the pairs that share enough; nothing where there are none."""
    members = pairs["covisibility"] > COVISIBLE
    if not members.any():
        return {}
    inside = {column: pairs[column][members] for column in COVISIBLE_STATISTICS}
    figures = _statistics(COVISIBLE_STATISTICS, inside)
    within = recalls(inside["trans_m"], inside["rot_deg"])
    figures |= {name: statistic("mean", values.astype(np.float64)) for name, values in within.items()}
    return {f"covisible_{name}": value for name, value in figures.items()} | {"covisible_pairs": float(members.sum())}


def _match_figures(pairs: Columns) -> dict[str, float]:
    unknown = {name: np.isnan(pairs[name]) for name in MATCH_STATISTICS if name in pairs}
    asked = {name: MATCH_STATISTICS[name] for name, missing in unknown.items() if not missing.all()}
    known = {name: pairs[name] if name in EXPECTED else pairs[name][~unknown[name]] for name in asked}
    return _statistics(asked, known)


def _statistics(asked: Mapping[str, Sequence[str]], columns: Columns) -> dict[str, float]:
    return {f"{column}_{name}": statistic(name, columns[column]) for column, names in asked.items() for name in names}


def _sample_figures(name: str, values: Float[np.ndarray, " n"]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known) and name in OPTIONAL:
        return {}
    if name in SAMPLE_STATISTICS:
        return _statistics({name: SAMPLE_STATISTICS[name]}, {name: known})
    return {name: statistic("mean", known)}
