"""How far a model's own word on its answers can be trusted: risk over coverage, and reliability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coopmap.evaluation.statistics import summarize
from coopmap.losses.matching import MEDIAN_SQUARED, SUCCESS_DEG, SUCCESS_M
from coopmap.metrics.aggregate import QUANTILES, statistic
from coopmap.metrics.pose import recall_name, recalls

WITHIN_M_DEG = ((1, 5), (2, 5), (3, 5))
"""Successes as the field reports them."""
WITHIN = tuple(recall_name(*limits) for limits in WITHIN_M_DEG)
SUCCESS = recall_name(SUCCESS_M, SUCCESS_DEG)
"""What models are trained to foresee."""
COVERAGES = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""Shares of the pairs, the most confident ones."""
LEAST_CONFIDENCES = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Confidences from which on an answer counts as given, if the model may abstain."""
BIN_EDGES = tuple(round(0.1 * step, 1) for step in range(11))
CONFIDENCE, COVISIBILITY = "confidence", "co-visibility"
LIMITS = {"50 %": MEDIAN_SQUARED**0.5, "90 %": 10.645**0.5}
"""Standard deviations that a share of normal errors of six parameters stays below (chi)."""

Columns = Mapping[str, Float[np.ndarray, " n"]]


def risk_coverage(pairs: Columns) -> list[dict[str, float]]:
    """Errors of the pairs that are kept when the least confident ones are left out, a row per share that is kept.

    A pair without a confidence is the least confident; there are no rows without any.
    """
    order = np.argsort(-pairs["confidence"], kind="stable")  # NaN last
    trans_m, rot_deg = (pairs[name][order] for name in ("trans_m", "rot_deg"))
    success = recalls(trans_m, rot_deg)[SUCCESS]
    rows = []
    for coverage in COVERAGES if np.isfinite(pairs["confidence"]).any() else ():
        kept = slice(max(1, round(coverage * len(order))))
        rows.append(
            {
                "coverage": coverage,
                "pairs": float(len(trans_m[kept])),
                "least_confidence": float(pairs["confidence"][order][kept][-1]),
                "trans_m_median": statistic("median", trans_m[kept]),
                "trans_m_p90": statistic("p90", trans_m[kept]),
                "rot_deg_median": statistic("median", rot_deg[kept]),
                "failures": float(1 - success[kept].mean()),
            }
        )
    return rows


def abstaining(pairs: Columns) -> list[dict[str, float | None]]:
    """Success, errors and the share of pairs with an answer (apply rate), a row per confidence that is asked for.

    Success and errors are of the answers alone; a pair without a confidence has none.
    """
    rows = []
    for least in LEAST_CONFIDENCES:
        given = pairs["confidence"] >= least
        trans_m, rot_deg = pairs["trans_m"][given], pairs["rot_deg"][given]
        row: dict[str, float | None] = {
            "confidence": least,
            "pairs": int(given.sum()),
            "apply_rate": float(given.mean()),
        }
        within = recalls(trans_m, rot_deg)
        row |= {name: float(within[name].mean()) if given.any() else None for name in WITHIN}
        for error, values in (("trans_m", trans_m), ("rot_deg", rot_deg)):
            row |= {f"{error}_{name}": statistic(name, values) if given.any() else None for name in QUANTILES}
        rows.append(row)
    return rows


def reliability(pairs: Columns) -> list[dict[str, Any]]:
    """What was expected and what came true, a row per tenth of the expectation that occurs.

    ``confidence``: that a pair's own aligned pose is within 2 m and 5 degrees, what the model is trained to foresee.
    ``co-visibility``: the share of what either agent sees that the other sees too.
    """
    came_true = {
        CONFIDENCE: _is_aligned_right(pairs),
        COVISIBILITY: pairs["covisibility"],
    }
    rows = []
    for what, expected in ((CONFIDENCE, pairs["confidence"]), (COVISIBILITY, pairs["covisibility_pred"])):
        observed = came_true[what].astype(np.float64)
        known = np.isfinite(expected) & np.isfinite(observed)
        place = np.clip(np.digitize(expected, BIN_EDGES) - 1, 0, len(BIN_EDGES) - 2)
        for number in np.unique(place[known]):
            here = known & (place == number)
            rows.append(
                {
                    "of": what,
                    "low": BIN_EDGES[number],
                    "high": BIN_EDGES[number + 1],
                    "pairs": int(here.sum()),
                    "expected": float(expected[here].mean()),
                    "observed": float(observed[here].mean()),
                }
            )
    return rows


def calibration_error(rows: list[dict[str, Any]], what: str) -> float:
    """Mean distance between expected and observed, weighted by pairs (expected calibration error); NaN for none."""
    chosen = [row for row in rows if row["of"] == what]
    total = sum(row["pairs"] for row in chosen)
    return (
        sum(row["pairs"] * abs(row["expected"] - row["observed"]) for row in chosen) / total if total else float("nan")
    )


def within_deviations(pairs: Columns) -> dict[str, float] | None:
    """Shares of the right poses whose error is no larger than their standard deviations say of 50 and 90 %.

    ``None`` where no pose is right.
    """
    sizes = pairs["aligned_mahalanobis"][_is_aligned_right(pairs)]
    return {name: float((sizes <= limit).mean()) for name, limit in LIMITS.items()} if len(sizes) else None


def confidence_summary(pairs: Columns, cluster: Int[np.ndarray, " n"], seed: int) -> dict[str, Any] | None:
    """Entry of ``summary.json``; ``None`` for a model that does not match.

    Args:
        pairs: columns of all pairs.
        cluster: of each pair, for intervals.
        seed: of the bootstrap.
    """
    if not np.isfinite(pairs.get("confidence", np.zeros(0))).any():
        return None
    rows = reliability(pairs)
    return {
        "covisibility_error": summarize(pairs["covisibility_error"], cluster, seed),
        "calibration_error": {what: calibration_error(rows, what) for what in (CONFIDENCE, COVISIBILITY)},
        "within_deviations": within_deviations(pairs),
        "abstaining": abstaining(pairs),
        "risk_coverage": risk_coverage(pairs),
        "reliability": rows,
    }


def _is_aligned_right(pairs: Columns) -> np.ndarray:
    within = recalls(pairs["aligned_trans_m"], pairs["aligned_rot_deg"])
    return within[SUCCESS] & (pairs["degenerate"] == 0)
