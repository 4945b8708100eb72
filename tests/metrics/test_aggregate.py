import math

import numpy as np
import pytest
import torch

from coopmap.metrics import aggregate, pose_rows
from coopmap.metrics.aggregate import OPTIONAL, REQUIRED

NO_PAIRS = {name: np.zeros(0) for name in ("num_agents", "distance_m", "trans_m", "rot_deg")}


def at(*places):
    pose = torch.eye(4).repeat(1, len(places), 1, 1)
    pose[0, :, 2, 3] = torch.tensor(places)
    return pose


def pairs_of(records, true, predicted, turned=0.0):
    pose = predicted.clone()
    pose[:, -1, :3, :3] = records.yaw_pose(turned, 0.0, 0, 0)[:3, :3]
    return pose_rows(pose, true).pairs


def grouped(*pairs):
    """Figures of groups of all these pairs."""
    columns = {name: torch.cat([each[name].flatten() for each in pairs]).numpy() for name in pairs[0]}
    figures = aggregate({}, columns)
    return {name: figures[name] for name in figures.keys() - aggregate({}, NO_PAIRS).keys()}


def test_pairs_by_distance_and_number_of_agents(records):
    result = grouped(
        pairs_of(records, at(0.0, 10.0), at(0.0, 11.0), turned=4.0),  # 10 m belongs to 10-20
        pairs_of(records, at(0.0, 15.0, 40.0), at(0.0, 18.0, 40.0)),  # pairs of 15, 40 and 25 m, off by 3, 0, 3
        pairs_of(records, at(5.0), at(5.0)),
    )
    expected = {
        "trans_m_mean_10_20m": 2.0,
        "trans_m_median_10_20m": 2.0,
        "rot_deg_mean_10_20m": 2.0,
        "pairs_10_20m": 2,
        "trans_m_mean_20_30m": 3.0,
        "trans_m_median_20_30m": 3.0,
        "rot_deg_mean_20_30m": 0.0,
        "pairs_20_30m": 1,
        "trans_m_mean_30_50m": 0.0,
        "trans_m_median_30_50m": 0.0,
        "rot_deg_mean_30_50m": 0.0,
        "pairs_30_50m": 1,
        "trans_m_mean_2_agents": 1.0,
        "trans_m_median_2_agents": 1.0,
        "rot_deg_mean_2_agents": 4.0,
        "pairs_2_agents": 1,
        "trans_m_mean_3_agents": 2.0,
        "trans_m_median_3_agents": 3.0,
        "rot_deg_mean_3_agents": 0.0,
        "pairs_3_agents": 3,
    }
    assert result == pytest.approx(expected, abs=1e-4)


def test_pairs_by_covisibility_if_it_is_known():
    errors = {"trans_m": np.array([8.0, 4.0, 2.0, 1.0, 99.0]), "rot_deg": np.zeros(5)}
    shares = np.array([0.02, 0.05, 0.3, 0.9, np.nan])
    result = aggregate({}, errors | {"covisibility": shares})
    assert {name: value for name, value in result.items() if name.startswith("trans_m_mean_cov")} == {
        "trans_m_mean_covisible_0_5": 8.0,
        "trans_m_mean_covisible_5_20": 4.0,
        "trans_m_mean_covisible_20_50": 2.0,
        "trans_m_mean_covisible_over_50": 1.0,
    }
    assert not any("covisible" in name for name in aggregate({}, errors))


def test_quantiles_and_shares_of_pairs():
    errors = np.arange(101) / 10  # 0 to 10 m
    result = aggregate({}, {"trans_m": errors, "rot_deg": np.where(errors > 1.95, 6.0, 5.0)})
    assert result["trans_m_median"] == pytest.approx(5.0)
    assert result["trans_m_p90"] == pytest.approx(9.0)
    assert result["trans_m_p95"] == pytest.approx(9.5)
    # limits count; beyond 1.95 m the rotation is beyond 5 degrees
    assert [result[f"recall_{name}"] for name in ("1m_5deg", "2m_5deg", "3m_5deg", "5m_10deg")] == pytest.approx(
        [11 / 101, 20 / 101, 20 / 101, 51 / 101]
    )


def test_samples_that_do_not_define_a_figure_do_not_count():
    undefined = dict.fromkeys((*REQUIRED, *OPTIONAL), np.full(3, np.nan))
    result = aggregate(undefined, NO_PAIRS)
    assert all(math.isnan(value) for value in result.values())
    assert {*REQUIRED} - {"scale_ratio"} | {"scale_ratio_mean", "scale_ratio_median"} <= result.keys()
    assert not result.keys() & {*OPTIONAL}
    result = aggregate(undefined | {"ate_se3_m": np.array([1.0, np.nan, 4.0])}, NO_PAIRS)
    assert result["ate_se3_m"] == 2.5
    assert list(aggregate({}, NO_PAIRS)) == [
        "trans_m_mean",
        "trans_m_median",
        "trans_m_p90",
        "trans_m_p95",
        "rot_deg_mean",
        "rot_deg_median",
        "recall_1m_2deg",
        "recall_1m_5deg",
        "recall_2m_5deg",
        "recall_3m_5deg",
        "recall_5m_10deg",
    ]


def test_covisible_pairs_apart():
    """Those that share more than a fifth; nothing is stated where there are none."""
    pairs = {
        "trans_m": np.array([50.0, 40.0, 0.5, 1.5, 4.0]),
        "rot_deg": np.array([90.0, 80.0, 1.0, 2.0, 9.0]),
        "covisibility": np.array([np.nan, 0.2, 0.21, 0.5, 0.9]),
    }
    result = aggregate({}, pairs)
    found = {name: value for name, value in result.items() if name.startswith("covisible_")}
    assert found == pytest.approx(
        {
            "covisible_trans_m_median": 1.5,
            "covisible_rot_deg_median": 2.0,
            "covisible_recall_1m_2deg": 1 / 3,
            "covisible_recall_1m_5deg": 1 / 3,
            "covisible_recall_2m_5deg": 2 / 3,
            "covisible_recall_3m_5deg": 2 / 3,
            "covisible_recall_5m_10deg": 1.0,
            "covisible_pairs": 3,
        }
    )
    alone = {name: values[:2] for name, values in pairs.items()}
    assert not any(name.startswith("covisible_") for name in aggregate({}, alone))
