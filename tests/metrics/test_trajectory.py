import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.geometry import pose_from_quat_trans
from coopmap.metrics.trajectory import TRAJECTORY_NAMES, trajectory_figures


def poses_at(*positions):
    pose = torch.eye(4).repeat(1, len(positions), 1, 1)
    pose[0, :, :3, 3] = torch.tensor(positions)
    return pose


def motion(seed):
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=-1)
    return pose_from_quat_trans(quat, 30 * torch.randn(3, generator=generator))


def figures(predicted, true):
    return {name: value.item() for name, value in trajectory_figures(predicted, true).items()}


def test_two_agents_keep_half_the_error_of_their_distance_after_a_rigid_alignment():
    result = figures(poses_at([0.0, 0, 0], [0.0, 0, 13]), poses_at([0.0, 0, 0], [5.0, 0, 0]))
    assert result["ate_none_m"] == pytest.approx(math.hypot(13, 5) / math.sqrt(2))
    assert result["ate_se3_m"] == pytest.approx((13 - 5) / 2, rel=1e-6)
    assert math.isnan(result["ate_sim3_m"])


def test_each_alignment_removes_what_it_can():
    generator = torch.Generator().manual_seed(0)
    true = poses_at(*(20 * torch.randn(4, 3, generator=generator)).tolist())
    turned = motion(1) @ true
    turned[..., :3, :3] = torch.eye(3)  # so that the reference agent's frame does not undo the rotation
    larger = turned.clone()
    larger[..., :3, 3] *= 1.5
    rigid, similar = figures(turned, true), figures(larger, true)
    assert rigid["ate_none_m"] > 5
    assert rigid["ate_se3_m"] < 1e-4
    assert rigid["ate_sim3_m"] < 1e-4
    assert similar["ate_none_m"] > 5
    assert similar["ate_se3_m"] > 1
    assert similar["ate_sim3_m"] < 1e-4


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_more_freedom_never_hurts_and_frames_do_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    true = poses_at(*(20 * torch.randn(4, 3, generator=generator)).tolist())
    predicted = true.clone()
    predicted[..., :3, 3] += torch.randn(4, 3, generator=generator)
    result = figures(predicted, true)
    assert result["ate_sim3_m"] <= result["ate_se3_m"] + 1e-6
    assert result["ate_se3_m"] <= result["ate_none_m"] + 1e-6
    moved = figures(motion(seed) @ predicted, motion(seed + 1) @ true)
    assert moved == pytest.approx(result, rel=1e-3, abs=1e-3)


def test_degenerate_positions_are_finite_and_undefined_ones_infinitely_far_off():
    true = poses_at([0.0, 0, 0], [0.0, 0, 10], [0.0, 0, 20])
    line = figures(poses_at([0.0, 0, 0], [0.0, 0, 20], [0.0, 0, 40]), true)
    assert line["ate_se3_m"] == pytest.approx(math.sqrt(2 / 3) * 10, rel=1e-6)
    assert line["ate_sim3_m"] == pytest.approx(0, abs=1e-6)
    together = figures(poses_at([1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]), true)
    assert together["ate_se3_m"] == pytest.approx(math.sqrt(200 / 3))
    assert together["ate_sim3_m"] == pytest.approx(math.sqrt(200 / 3))
    undefined = torch.cat([true * torch.nan, true])
    result = trajectory_figures(undefined, torch.cat([true, true]))
    assert all(value[0].isinf() and value[1] < 1e-9 for value in result.values())


def test_single_agents_do_not_count(records):
    target = records.target(torch.ones(1, 1, 2, 2))
    single = records.prediction(target), target
    assert not records.figures(single).keys() & {*TRAJECTORY_NAMES}
    target = records.target(torch.ones(1, 2, 2, 2), pose=poses_at([0.0, 0, 0], [3.0, 0, 0]))
    pair = records.prediction(target, pose=poses_at([0.0, 0, 0], [5.0, 0, 0])), target
    result = {name: value for name, value in records.figures(single, pair).items() if name in TRAJECTORY_NAMES}
    assert result == pytest.approx({"ate_none_m": math.sqrt(2), "ate_se3_m": 1.0})


@pytest.mark.parametrize("rank_predicted", [0, 1, 2, 3])
@pytest.mark.parametrize("rank_true", [0, 1, 2, 3])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_errors_after_alignment_are_unique_where_the_alignment_is_not(rank_predicted, rank_true, seed):
    """Positions that coincide, lie on a line or in a plane: the least error follows from singular values alone."""
    generator = torch.Generator().manual_seed(seed)
    clouds = []
    for rank in (rank_predicted, rank_true):
        axes = torch.randn(5, rank, generator=generator) @ torch.randn(rank, 3, generator=generator)
        clouds.append((10 * axes + torch.randn(3, generator=generator)).double())
    poses = [torch.eye(4, dtype=torch.float64).repeat(1, 5, 1, 1) for _ in clouds]
    for pose, cloud in zip(poses, clouds, strict=True):
        pose[0, :, :3, 3] = cloud
    predicted, true = (cloud - cloud.mean(dim=0) for cloud in clouds)
    product = predicted.T @ true
    shared = torch.linalg.svdvals(product)
    shared[2] *= torch.linalg.det(product).sign() if min(rank_predicted, rank_true) == 3 else 0
    size_predicted, size_true = predicted.square().sum(), true.square().sum()
    after_motion = size_predicted + size_true - 2 * shared.sum()
    after_similarity = size_true - (shared.sum() ** 2 / size_predicted if rank_predicted else 0)
    if not rank_predicted:  # no rotation, no scale: all at the mean
        after_motion = size_true
    result = figures(*poses)
    # squared errors are differences of these squares; a closed form without an SVD has half the digits of float64
    rounding = 10 * math.sqrt(torch.finfo(torch.float64).eps) * (size_predicted + size_true).item() / 5
    assert result["ate_se3_m"] ** 2 == pytest.approx(after_motion.item() / 5, rel=0, abs=rounding)
    scale = (size_true / size_predicted).item() if rank_predicted else 1.0
    assert result["ate_sim3_m"] ** 2 == pytest.approx(after_similarity.item() / 5, rel=0, abs=rounding * (1 + scale))
