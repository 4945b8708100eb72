"""Mean and percentiles of metrics, with bootstrap intervals that respect the dependence of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 2000
CHUNK = 4_000_000
"""Values of all resamples that are handled at once: bounds the memory."""
LEVEL = 0.95
MIN_SCENARIOS = 5

STATISTICS = ("mean", "median", "p90", "p95")


def clusters(scenarios: Sequence[str], samples: Sequence[object]) -> tuple[Int[np.ndarray, " n"], str]:
    """Which values are resampled together, and the name of that unit.

    Frames of one scenario show the same streets and the same agents: they are not independent samples. So whole
    scenarios are resampled if there are at least five, otherwise whole samples (with all their pairs).

    Args:
        scenarios: of each value.
        samples: of each value, a hashable key.
    """
    if len(set(scenarios)) >= MIN_SCENARIOS:
        return _numbered(scenarios), "scenarios"
    return _numbered(samples), "samples"


def _numbered(keys: Sequence[object]) -> Int[np.ndarray, " n"]:
    number: dict[object, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def summarize(
    values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, float | int | list[float] | None]:
    """``count``, the :data:`STATISTICS` and, as ``mean_ci95`` and so on, their percentile-bootstrap intervals.

    Values that are NaN (a metric that a sample does not have) are left out. Infinite ones (errors of predictions that
    are not finite) count: they make the mean infinite, and the quantiles that they reach. Intervals are ``None`` with
    fewer than two clusters and where an end is not finite; everything is without any value.

    Args:
        values: of one metric.
        cluster: values with the same number are resampled together.
        seed: same seed, same interval.
        resamples: bootstrap samples.
    """
    known = ~np.isnan(values)
    values, cluster = np.asarray(values, dtype=np.float64)[known], _numbered(cluster[known].tolist())
    result: dict[str, float | int | list[float] | None] = {"count": len(values)}
    num_clusters = int(cluster.max(initial=-1)) + 1
    if not len(values):
        return result | dict.fromkeys([*STATISTICS, *(f"{name}_ci95" for name in STATISTICS)])
    order = np.argsort(values, kind="stable")
    values, cluster = values[order], cluster[order]
    result |= dict(zip(STATISTICS, _statistics(values, np.ones((1, len(values))))[0].tolist(), strict=True))
    if num_clusters < 2:
        return result | dict.fromkeys(f"{name}_ci95" for name in STATISTICS)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=resamples)
    chunk = max(1, CHUNK // len(values))
    chunks = [_statistics(values, drawn[i : i + chunk, cluster]) for i in range(0, resamples, chunk)]
    with np.errstate(invalid="ignore"):  # inf - inf between two order statistics
        ends = np.quantile(np.concatenate(chunks), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
    intervals = [pair.tolist() if np.isfinite(pair).all() else None for pair in ends]
    return result | {f"{name}_ci95": pair for name, pair in zip(STATISTICS, intervals, strict=True)}


def _statistics(values: Float[np.ndarray, " n"], times: Float[np.ndarray, "r n"]) -> Float[np.ndarray, "r 4"]:
    """The :data:`STATISTICS` of sorted values, each repeated the given number of times.

    Quantiles are numpy's default: linear between the two nearest order statistics.
    """
    total = times.cumsum(axis=1)
    count = total[:, -1]
    finite = np.isfinite(values)
    means = times @ np.where(finite, values, 0) / count
    columns = [np.where(times @ ~finite > 0, np.inf, means)]
    for share in (0.5, 0.9, 0.95):
        place = share * (count - 1)
        below = np.floor(place)
        low, high = (
            values[(total > rank[:, None]).argmax(axis=1)] for rank in (below, np.minimum(below + 1, count - 1))
        )
        share_above = place - below
        with np.errstate(invalid="ignore"):  # 0 times infinity, and infinity between two infinite values
            between = low + share_above * (high - low)
        columns.append(np.where((share_above == 0) | (low == high), low, between))
    return np.stack(columns, axis=1)
