"""With views of neighboring ticks, measures between agents are those of the sample's own tick."""

from dataclasses import replace

import pytest
import torch

from coopmap.metrics import measure

AGENT = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture
def target(records):
    """Three agents with two ticks each."""
    _, target = records.scene(3, batch=2, views=6)
    return replace(target, agent=AGENT.expand(2, 6))


def of_own_ticks(record):
    """The record without neighboring ticks."""
    fields = {name: value[:, ::2] for name, value in vars(record).items() if value is not None and value.ndim > 1}
    return replace(record, **fields | ({"agent": None} if hasattr(record, "agent") else {}))


def test_poses_between_agents_are_those_of_own_ticks(target, records):
    moved = target.pose.clone()
    moved[:, 2] = moved[:, 2] @ records.yaw_pose(3, 1.0, 0.0, 0.5)
    prediction = records.prediction(target, moved)
    rows, expected = measure(prediction, target), measure(of_own_ticks(prediction), of_own_ticks(target))
    assert rows.samples["num_agents"].tolist() == [3, 3]
    for name, values in expected.pairs.items():
        torch.testing.assert_close(rows.pairs[name], values, equal_nan=True, msg=name)
    assert (rows.pairs["trans_m"][:, 0] > 1).all()


def test_errors_of_other_ticks_do_not_count_between_agents(target, records):
    moved = target.pose.clone()
    moved[:, 1::2] = moved[:, 1::2] @ records.yaw_pose(90, 10.0, 0.0, 0.0)
    rows = measure(records.prediction(target, moved), target)
    assert rows.pairs["trans_m"].max() < 1e-3
    assert rows.pairs["rot_deg"].max() < 0.1


def test_covisibility_is_that_of_own_ticks(target, records):
    prediction = records.prediction(target)
    shared = measure(prediction, target).pairs["covisibility"]
    expected = measure(of_own_ticks(prediction), of_own_ticks(target)).pairs["covisibility"]
    assert expected.isfinite().all()
    torch.testing.assert_close(shared, expected)
