from __future__ import annotations

import dataclasses

import pytest
import roma
import torch

from coopmap.config import ConfigError
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose, rotation_angle
from coopmap.models import MapAnything
from coopmap.models.decoding import decode, with_poses
from coopmap.models.pose_update import PoseUpdate
from coopmap.models.priors import RoughPoses
from coopmap.types import Prediction

from .support import load_config, make_observation
from .test_mapanything import FIELDS, objective
from .test_pose_correction import poses

DIM = 24
ALL = torch.ones(2, 3, dtype=torch.bool)


def make_prediction(seed: int = 0) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    dense, trans, quat = (torch.randn(2, 3, *shape, generator=generator) for shape in [(6, 4, 5), (3,), (4,)])
    return decode(dense, trans, quat, torch.randn(2, generator=generator))


def rough_poses() -> torch.Tensor:
    pose = poses(2, 3)
    return relative_pose(pose[:, :1], pose)


def update_with_gain(gain: float) -> PoseUpdate:
    torch.manual_seed(0)
    update = PoseUpdate(DIM, 16)
    torch.nn.init.constant_(update.mlp[-1].bias, torch.logit(torch.tensor(gain)).item())
    return update


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_a_gain_of_zero_keeps_the_rough_pose_and_one_takes_the_answer(gain):
    prediction, rough = make_prediction(), rough_poses()
    updated = update_with_gain(gain)(prediction, rough, ALL, torch.randn(2, 3, DIM))
    pose, answer = (pose_from_quat_trans(each.pose_quat, each.pose_trans) for each in (updated, prediction))
    torch.testing.assert_close(pose[:, 0], answer[:, 0], atol=1e-5, rtol=0)  # the frame of all stays the answer's
    expected = answer if gain else answer[:, :1] @ rough
    torch.testing.assert_close(pose, expected, atol=1e-4, rtol=0)


def test_half_a_gain_ends_half_way():
    prediction, rough = make_prediction(), rough_poses()
    near = rough.clone()
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0.0]))
    near[:, 1:, :3, :3] = near[:, 1:, :3, :3] @ turn
    near[:, 1:, :3, 3] += torch.tensor([1.0, 0.2, -2.0])
    quat = roma.rotmat_to_unitquat(near[..., :3, :3])
    answer = with_poses(prediction, quat, near[..., :3, 3])
    updated = update_with_gain(0.5)(answer, rough, ALL, torch.randn(2, 3, DIM))
    shift = (updated.pose_trans - rough[..., :3, 3])[:, 1:]
    torch.testing.assert_close(shift, torch.tensor([0.5, 0.1, -1.0]).expand(2, 2, 3), atol=1e-4, rtol=0)
    turned = relative_pose(rough, pose_from_quat_trans(updated.pose_quat, updated.pose_trans))[:, 1:]
    torch.testing.assert_close(rotation_angle(turned[..., :3, :3]), torch.full((2, 2), 0.05), atol=1e-3, rtol=0)
    moved = pose_from_quat_trans(updated.pose_quat, updated.pose_trans)
    points = torch.einsum("bvij,bvhwj->bvhwi", moved[..., :3, :3], updated.points_view)
    torch.testing.assert_close(updated.points_world, points + moved[..., None, None, :3, 3], atol=1e-4, rtol=1e-4)


def test_views_without_a_rough_pose_keep_the_answer_to_the_bit():
    prediction, known = make_prediction(), ALL.clone()
    known[0], known[1, 2] = False, False
    updated = update_with_gain(0.3)(prediction, rough_poses(), known, torch.randn(2, 3, DIM))
    for field in FIELDS:
        assert torch.equal(getattr(updated, field)[0], getattr(prediction, field)[0]), field
    assert torch.equal(updated.pose_trans[1, 2], prediction.pose_trans[1, 2])
    assert not torch.equal(updated.pose_trans[1, 1], prediction.pose_trans[1, 1])


def test_it_learns_whom_to_believe():
    """Rough poses and answers of unknown roughness, one level per sample: better than either."""
    torch.manual_seed(0)
    update, generator = PoseUpdate(DIM, 64), torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(update.parameters(), lr=3e-3)
    template = make_prediction()
    features = torch.zeros(2, 3, DIM)
    errors = []
    for _ in range(400):
        true = torch.eye(4).repeat(2, 3, 1, 1)
        true[:, 1:, :3, 3] = torch.tensor([15.0, 0.0, 15.0]) + 5 * torch.randn(2, 2, 3, generator=generator)
        level = 8 * torch.rand(2, 1, 1, generator=generator) ** 2
        rough, answer = true.clone(), true.clone()
        rough[:, 1:, :3, 3] += level * torch.randn(2, 2, 3, generator=generator)
        answer[:, 1:, :3, 3] += 2 * torch.randn(2, 2, 3, generator=generator)
        quat = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(2, 3, 4)
        updated = update(with_poses(template, quat, answer[..., :3, 3]), rough, ALL, features)
        error = [
            (trans - true[..., :3, 3])[:, 1:].norm(dim=-1).mean()
            for trans in (updated.pose_trans, rough[..., :3, 3], answer[..., :3, 3])
        ]
        optimizer.zero_grad()
        error[0].backward()
        optimizer.step()
        errors.append([float(value.detach()) for value in error])
    ours, rough_error, answer_error = (sum(column[-150:]) / 150 for column in zip(*errors, strict=True))
    assert ours < 0.8 * min(rough_error, answer_error)


@pytest.fixture(scope="module")
def model() -> MapAnything:
    torch.manual_seed(0)
    overrides = {"inputs": {"pose": True}, "pose_correction": True, "pose_update": True}
    return MapAnything(load_config("mapanything_tiny", overrides))


@torch.no_grad()
def test_absent_priors_leave_the_model_bit_identical(model):
    observation = make_observation(2, 3, 28, 42)
    images_only = MapAnything(load_config("mapanything_tiny")).eval()
    images_only.load_state_dict(model.state_dict(), strict=False)
    expected = images_only(observation)
    absent = dataclasses.replace(observation, pose_prior=poses(2, 3), pose_given=torch.zeros_like(ALL))
    for given in (observation, absent):
        answer = model.eval()(given)
        for field in FIELDS:
            assert torch.equal(getattr(answer, field), getattr(expected, field)), field


def test_a_relative_pose_takes_two_that_are_metric():
    given = torch.tensor([[True, False, True], [False, True, True]])
    is_metric = torch.tensor([[True, True, True], [True, True, True]])
    known = RoughPoses(poses(2, 3), given, is_metric).known_from_view0
    assert known.tolist() == [[True, False, True], [False, False, False]]
    is_metric[0, 2] = False
    assert RoughPoses(poses(2, 3), given, is_metric).known_from_view0[0].tolist() == [True, False, False]


@pytest.mark.parametrize("given", ["none", "absent", "all"])
def test_every_parameter_takes_part_in_every_step(model, given):
    observation = make_observation(2, 3, 28, 42)
    if given != "none":
        pose_given = torch.full((2, 3), given == "all")
        observation = dataclasses.replace(observation, pose_prior=poses(2, 3), pose_given=pose_given)
    model.train().zero_grad()
    objective(model(observation)).backward()
    lacking = [name for name, value in model.named_parameters() if value.grad is None]
    assert not lacking
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_it_needs_the_encoder_of_poses():
    with pytest.raises(ConfigError, match=r"model\.pose_update.*model\.inputs\.pose"):
        load_config("mapanything_tiny", {"pose_update": True})
