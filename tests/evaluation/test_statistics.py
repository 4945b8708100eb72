import numpy as np
import pytest

from coopmap.evaluation.statistics import clusters, summarize


def test_values_by_hand() -> None:
    summary = summarize(np.array([4.0, 1.0, np.nan, 3.0, 2.0, 10.0]), np.arange(6))
    assert summary["count"] == 5
    assert summary["mean"] == pytest.approx(4.0)
    assert summary["median"] == pytest.approx(3.0)
    assert summary["p90"] == pytest.approx(np.quantile([1, 2, 3, 4, 10], 0.9))
    assert summary["p95"] == pytest.approx(np.quantile([1, 2, 3, 4, 10], 0.95))


def test_interval_of_the_mean_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = summarize(values, np.arange(400))["mean_ci95"]
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_bootstrap_equals_the_plain_one_on_the_same_draws() -> None:
    values, cluster = np.array([1.0, 5.0, 2.0, 8.0, 3.0]), np.array([0, 0, 1, 2, 2])
    summary = summarize(values, cluster, seed=3, resamples=300)
    drawn = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, size=300)
    plain = [np.repeat(values, times[cluster]) for times in drawn]
    quantiles = {f"p{share}": lambda v, share=share: np.quantile(v, share / 100) for share in (90, 95)}
    for name, function in {"mean": np.mean, "median": np.median, **quantiles}.items():
        expected = np.quantile([function(values) for values in plain], [0.025, 0.975])
        assert summary[f"{name}_ci95"] == pytest.approx(expected)


def test_values_that_hang_together_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=10), 20)
    alone = summarize(values, np.arange(200))["mean_ci95"]
    together = summarize(values, np.repeat(np.arange(10), 20))["mean_ci95"]
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


def test_whole_scenarios_are_drawn_where_there_are_five() -> None:
    assert clusters(["a", "a", "b", "c", "d", "e"], range(6))[0].tolist() == [0, 0, 1, 2, 3, 4]
    numbers, unit = clusters(["a", "a", "b", "b"], [("a", 1), ("a", 1), ("b", 1), ("b", 2)])
    assert (numbers.tolist(), unit) == ([0, 0, 1, 2], "samples")


def test_too_little_for_an_interval() -> None:
    assert summarize(np.array([2.0, 4.0]), np.zeros(2))["mean_ci95"] is None
    empty = summarize(np.array([np.nan]), np.zeros(1))
    assert (empty["count"], empty["mean"], empty["mean_ci95"]) == (0, None, None)


def test_an_infinite_value_counts_as_one() -> None:
    values = np.array([1.0, 2, 3, 4, np.inf, 5, 6, 7, 8, 9, 10])
    summary = summarize(values, np.arange(11))
    assert (summary["count"], summary["mean"], summary["mean_ci95"]) == (11, np.inf, None)
    assert (summary["median"], summary["p90"]) == (6, 10)
    assert summary["median_ci95"][1] <= 10
    # nearer to the end than the quantile
    assert summarize(np.array([1.0, np.inf, np.inf]), np.arange(3))["median"] == np.inf
