"""Risk over coverage and reliability, by hand."""

import math

import numpy as np
import pytest

from coopmap.evaluation.confidence import (
    COVERAGES,
    abstaining,
    calibration_error,
    confidence_summary,
    reliability,
    risk_coverage,
    within_deviations,
)


def pairs_of(**columns: list[float]) -> dict[str, np.ndarray]:
    count = len(next(iter(columns.values())))
    zeros = dict.fromkeys(
        ("rot_deg", "aligned_rot_deg", "degenerate", "covisibility", "covisibility_pred"), [0.0] * count
    )
    return {name: np.array(values) for name, values in (zeros | columns).items()}


def test_the_least_confident_are_left_out_first() -> None:
    pairs = pairs_of(confidence=[0.2, 0.9, math.nan, 0.6, 0.4], trans_m=[8.0, 1.0, 99.0, 2.0, 4.0])
    rows = {row["coverage"]: row for row in risk_coverage(pairs)}
    assert tuple(rows) == COVERAGES
    assert [rows[share]["trans_m_median"] for share in (0.25, 0.5, 0.75, 1.0)] == [1.0, 1.5, 3.0, 4.0]
    assert [rows[share]["failures"] for share in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([0, 0, 0.5, 0.6])
    assert rows[0.75]["least_confidence"] == 0.2
    assert (rows[1.0]["pairs"], math.isnan(rows[1.0]["least_confidence"])) == (5, True)  # last: no confidence at all


def test_a_model_that_may_abstain_answers_the_confident_pairs() -> None:
    pairs = pairs_of(
        confidence=[0.2, 0.95, math.nan, 0.6, 0.4],
        trans_m=[2.5, 0.5, 99.0, 1.5, 9.0],
        rot_deg=[1.0, 2.0, 0.0, 6.0, 1.0],
    )
    rows = {row["confidence"]: row for row in abstaining(pairs)}
    assert [row["apply_rate"] for row in rows.values()] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.2])
    assert [rows[0.0][f"recall_{limit}m_5deg"] for limit in (1, 2, 3)] == pytest.approx([0.25, 0.25, 0.5])
    assert [rows[0.5][f"recall_{limit}m_5deg"] for limit in (1, 2, 3)] == pytest.approx([0.5, 0.5, 0.5])
    assert rows[0.5]["trans_m_median"] == pytest.approx(1.0)
    assert rows[0.0]["trans_m_p95"] == pytest.approx(np.quantile([2.5, 0.5, 1.5, 9.0], 0.95))
    assert rows[0.9]["pairs"] == 1
    nobody = {row["confidence"]: row for row in abstaining(pairs_of(confidence=[0.1], trans_m=[1.0]))}[0.9]
    assert (nobody["apply_rate"], nobody["recall_1m_5deg"], nobody["rot_deg_p90"]) == (0.0, None, None)


def test_what_was_expected_and_what_came_true() -> None:
    pairs = pairs_of(
        confidence=[0.91, 0.97, 0.95, 0.99, 0.05, 1.0],
        aligned_trans_m=[1.0, 1.0, 1.0, 3.0, 50.0, 1.0],
        aligned_rot_deg=[0.0, 0.0, 6.0, 0.0, 0.0, 0.0],
        degenerate=[0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        trans_m=[0.0] * 6,
        covisibility_pred=[0.31, 0.39, 0.5, 0.5, 0.5, 0.5],
        covisibility=[0.2, 0.4, math.nan, math.nan, math.nan, math.nan],
    )
    rows = reliability(pairs)
    found = {(row["of"], row["low"]): (row["pairs"], row["expected"], row["observed"]) for row in rows}
    assert found == {
        ("confidence", 0.0): (1, pytest.approx(0.05), 0.0),
        ("confidence", 0.9): (5, pytest.approx(0.964), pytest.approx(0.4)),
        ("co-visibility", 0.3): (2, pytest.approx(0.35), pytest.approx(0.3)),
    }
    assert calibration_error(rows, "confidence") == pytest.approx((0.05 + 5 * 0.564) / 6)
    assert calibration_error(rows, "co-visibility") == pytest.approx(0.05)


def test_errors_in_standard_deviations_are_of_right_poses() -> None:
    pairs = pairs_of(
        aligned_trans_m=[1.0, 1.0, 1.0, 1.0, 9.0, 1.0],
        degenerate=[0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        aligned_mahalanobis=[1.0, 2.31, 3.26, 3.27, 0.1, math.nan],
    )
    assert within_deviations(pairs) == {"50 %": 0.5, "90 %": 0.75}
    assert within_deviations(pairs_of(aligned_trans_m=[9.0], aligned_mahalanobis=[1.0])) is None


def test_a_model_that_does_not_match_says_nothing() -> None:
    assert confidence_summary({"confidence": np.full(3, np.nan)}, np.arange(3), 0) is None
    assert confidence_summary({}, np.arange(3), 0) is None
