import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.geometry import pose_from_quat_trans
from coopmap.metrics import BASELINE_COLUMNS, MeanPoseBaseline, Measures, pose_rows
from coopmap.metrics.pose import area_under_curve, direction_error_deg


def yaw_pose(degrees, x, y, z):
    half = math.radians(degrees) / 2
    return pose_from_quat_trans(torch.tensor([0.0, math.sin(half), 0.0, math.cos(half)]), torch.tensor([x, y, z]))


def random_poses(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=generator), dim=-1)
    return pose_from_quat_trans(quat, 30 * torch.randn(*shape, 3, generator=generator))


def figures(pose_pred, pose_true):
    measures = Measures(*BASELINE_COLUMNS)
    measures.update(pose_rows(pose_pred, pose_true))
    return measures.compute()


def test_three_agents_worked_out_by_hand():
    true = torch.stack([yaw_pose(0, 0.0, 0, 0), yaw_pose(0, 0.0, 0, 10.0), yaw_pose(0, 10.0, 0, 0)])[None]
    # View 1 stands 0.5 m too far and turned by 4.5 degrees, view 2 is 6 m off.
    pred = torch.stack([yaw_pose(0, 0.0, 0, 0), yaw_pose(4.5, 0.0, 0, 10.5), yaw_pose(0, 16.0, 0, 0)])[None]
    result = figures(pred, true)
    turn = math.radians(4.5)
    # T_1_2: from (10, 0, -10) to (16, 0, -10.5) seen from a car turned by 4.5 degrees.
    x = math.cos(turn) * 16 + math.sin(turn) * 10.5
    z = math.sin(turn) * 16 - math.cos(turn) * 10.5
    far = math.hypot(x - 10, z + 10)
    assert result["trans_m_mean"] == pytest.approx((0.5 + 6 + far) / 3, rel=1e-5)
    assert result["trans_m_median"] == pytest.approx(6.0, rel=1e-5)
    assert result["rot_deg_mean"] == pytest.approx(3.0, rel=1e-4)
    assert result["rot_deg_median"] == pytest.approx(4.5, rel=1e-4)
    assert result["recall_1m_2deg"] == 0
    assert result["recall_2m_5deg"] == pytest.approx(1 / 3)
    assert result["recall_5m_10deg"] == pytest.approx(1 / 3)
    # Pair 01 errs by its rotation, 02 not at all (its direction is right), 12 by its rotation or direction.
    direction = abs(math.degrees(math.atan2(z, x) - math.atan2(-10, 10)))
    reached = [30 - math.floor(error) for error in (4.5, 0.0, max(4.5, direction))]
    assert result["auc_30"] == pytest.approx(sum(reached) / 90, rel=1e-5)


def test_auc_is_the_mean_accuracy_over_thresholds():
    errors = torch.tensor([[0.5, 10.5, 40.0], [30.0, 29.9, 0.0]])
    expected = [(30 + 20 + 0) / 90, (1 + 1 + 30) / 90]
    torch.testing.assert_close(area_under_curve(errors), torch.tensor(expected))


def test_direction_error_ignores_the_sign_and_is_ninety_without_a_direction():
    true = torch.tensor([[1.0, 0, 0]] * 4)
    predicted = torch.tensor([[2.0, 0, 0], [-3.0, 0, 0], [1.0, 1.0, 0], [0.0, 0, 0]])
    torch.testing.assert_close(direction_error_deg(predicted, true), torch.tensor([0.0, 0, 45.0, 90.0]))


def test_median_of_an_even_number_is_the_middle():
    true = torch.eye(4).expand(2, 2, 4, 4).clone()
    pred = true.clone()
    pred[0, 1, 0, 3], pred[1, 1, 0, 3] = 1.0, 4.0
    assert figures(pred, true)["trans_m_median"] == 2.5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_frame_of_either_side_does_not_matter(seed):
    pred, true, motions = random_poses(seed, 2, 4), random_poses(seed + 1, 2, 4), random_poses(seed + 2, 2, 2, 1)
    moved = figures(motions[0] @ pred, motions[1] @ true)
    for name, value in figures(pred, true).items():
        assert moved[name] == pytest.approx(value, rel=1e-4, abs=1e-3 if name != "auc_30" else 0.02)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_perfect_prediction(seed):
    true = random_poses(seed, 2, 3)
    result = figures(true, true)
    assert result.pop("trans_m_mean") < 1e-4
    assert result.pop("trans_m_median") < 1e-4
    assert result.pop("trans_m_p90") < 1e-4
    assert result.pop("trans_m_p95") < 1e-4
    assert result.pop("rot_deg_mean") < 1e-4
    assert result.pop("rot_deg_median") < 1e-4
    limits = ("1m_2deg", "1m_5deg", "2m_5deg", "3m_5deg", "5m_10deg")
    assert result == dict.fromkeys([f"recall_{name}" for name in limits], 1.0) | {"auc_30": 1.0}


def test_batches_and_numbers_of_views_are_pooled_by_pair():
    measures = Measures(*BASELINE_COLUMNS)
    for views, offset in ((2, 1.0), (3, 3.0)):
        true = torch.eye(4).expand(1, views, 4, 4).clone()
        pred = true.clone()
        pred[:, 1:, 0, 3] = offset
        measures.update(pose_rows(pred, true))
    # Pairs 01 | 01, 02, 12: 1 | 3, 3, 0
    assert measures.compute()["trans_m_mean"] == pytest.approx(7 / 4)


def test_nothing_seen_is_nan_and_a_reset_forgets():
    measures = Measures(*BASELINE_COLUMNS)
    true = random_poses(0, 2, 3)
    measures.update(pose_rows(true, true))
    measures.reset()
    measures.update(pose_rows(true[:, :1], true[:, :1]))
    assert all(math.isnan(value) for value in measures.compute().values())


def test_an_undefined_prediction_is_no_success():
    true = torch.eye(4).expand(1, 2, 4, 4).clone()
    result = figures(torch.full_like(true, torch.nan), true)
    assert result["trans_m_mean"] == result["trans_m_median"] == result["rot_deg_mean"] == math.inf
    assert result["recall_5m_10deg"] == result["auc_30"] == 0


def test_mean_pose_baseline_answers_with_the_mean():
    ahead = torch.stack([yaw_pose(10, 0.0, 0, 10.0), yaw_pose(-30, 2.0, 0, 20.0)])
    beside = torch.stack([yaw_pose(175, 5.0, 0, 0), yaw_pose(-175, 7.0, 1.0, 0)])
    poses = MeanPoseBaseline().fit({1: ahead, 2: beside}).predict(num_views=3, batch=2)
    assert poses.shape == (2, 3, 4, 4)
    expected = torch.stack([torch.eye(4), yaw_pose(-10, 1.0, 0, 15.0), yaw_pose(180, 6.0, 0.5, 0)])
    torch.testing.assert_close(poses, expected.expand(2, 3, 4, 4), rtol=1e-5, atol=1e-5)
    result = figures(poses[:, :2], torch.stack([torch.eye(4).expand(2, 4, 4), ahead], dim=1))
    assert result["trans_m_mean"] == pytest.approx(math.hypot(1, 5), rel=1e-5)
    assert result["rot_deg_mean"] == pytest.approx(20, rel=1e-4)


def test_mean_pose_baseline_has_an_answer_for_any_number_of_views():
    baseline = MeanPoseBaseline().fit({1: torch.eye(4)[None]})
    more = baseline.predict(num_views=3, batch=1)  # more agents than any training sample had
    assert torch.equal(more[:, 2], more[:, 1])
    with pytest.raises(ValueError, match="no training poses"):
        MeanPoseBaseline().predict(num_views=2, batch=1)
    with pytest.raises(ValueError, match="poses of view 0"):
        baseline.fit({0: torch.eye(4)[None]})
    assert torch.equal(baseline.predict(num_views=1, batch=1), torch.eye(4)[None, None])


def test_mean_pose_baseline_looks_ahead_where_the_training_poses_look_both_ways():
    both_ways = torch.stack([yaw_pose(30, 2.0, 0, 10.0), yaw_pose(210, 4.0, 0, 20.0)])
    answer = MeanPoseBaseline().fit({1: both_ways}).predict(num_views=2, batch=1)[0, 1]
    assert torch.equal(answer[:3, :3], torch.eye(3))
    assert answer[:3, 3].tolist() == [3.0, 0.0, 15.0]
