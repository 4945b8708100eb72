import pytest
import torch

from coopmap.metrics import PairBreakdown
from coopmap.metrics import breakdown as subject


def at(*places):
    pose = torch.eye(4).repeat(1, len(places), 1, 1)
    pose[0, :, 2, 3] = torch.tensor(places)
    return pose


def add(metric, records, true, predicted, turned=0.0):
    target = records.target(torch.full((1, true.shape[1], 1, 2), 5.0), pose=true)
    pose = predicted.clone()
    pose[:, -1, :3, :3] = records.yaw_pose(turned, 0.0, 0, 0)[:3, :3]
    metric.update(records.prediction(target, pose=pose), target)


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_pairs_by_distance_and_number_of_agents(records):
    metric = PairBreakdown()
    add(metric, records, at(0.0, 10.0), at(0.0, 11.0), turned=4.0)  # 10 m belongs to 10-20
    add(metric, records, at(0.0, 15.0, 40.0), at(0.0, 18.0, 40.0))  # pairs of 15, 40 and 25 m, off by 3, 0, 3
    add(metric, records, at(5.0), at(5.0))
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
    assert values(metric) == pytest.approx(expected, abs=1e-4)


def test_pairs_by_covisibility(records, monkeypatch):
    shares = iter([torch.tensor([[0.02]]), torch.tensor([[0.05]]), torch.tensor([[0.3]]), torch.tensor([[0.9]])])
    monkeypatch.setattr(subject, "covisibility", lambda _: next(shares).double())
    metric = PairBreakdown(by_covisibility=True)
    for error in (8.0, 4.0, 2.0, 1.0):
        add(metric, records, at(0.0, 10.0), at(0.0, 10.0 + error))
    result = {name: value for name, value in values(metric).items() if name.startswith("trans_m_mean_cov")}
    assert result == pytest.approx(
        {
            "trans_m_mean_covisible_0_5": 8.0,
            "trans_m_mean_covisible_5_20": 4.0,
            "trans_m_mean_covisible_20_50": 2.0,
            "trans_m_mean_covisible_over_50": 1.0,
        }
    )


def test_nothing_seen_and_a_reset(records):
    metric = PairBreakdown()
    add(metric, records, at(0.0, 10.0), at(0.0, 11.0))
    metric.reset()
    add(metric, records, at(5.0), at(5.0))
    assert values(metric) == {}
