from __future__ import annotations

import dataclasses

import pytest
import roma
import torch

from coopmap.config import ConfigError
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose, rotation_angle
from coopmap.models import MapAnything
from coopmap.models.addons.pose_update import PoseUpdate
from coopmap.models.decoding import decode, with_poses
from coopmap.types import Observation, Prediction

from .support import load_config, make_observation
from .test_mapanything import FIELDS, objective
from .test_pose_correction import poses

DIM = 24
ALL = torch.ones(2, 3, dtype=torch.bool)


def make_prediction(seed: int = 0) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    dense, trans, quat = (torch.randn(2, 3, *shape, generator=generator) for shape in [(6, 4, 5), (3,), (4,)])
    return decode(dense, trans, quat, torch.randn(2, generator=generator))


def seen(pose: torch.Tensor) -> Observation:
    return dataclasses.replace(make_observation(*pose.shape[:2], 14, 14), pose_prior=pose)


def in_view0(pose: torch.Tensor) -> torch.Tensor:
    return relative_pose(pose[:, :1], pose)


def update_with_gain(gain: float) -> PoseUpdate:
    torch.manual_seed(0)
    update = PoseUpdate(DIM, 16)
    torch.nn.init.constant_(update.mlp[-1].bias, torch.logit(torch.tensor(gain)).item())
    return update


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_a_gain_of_zero_keeps_the_rough_pose_and_one_takes_the_answer(gain):
    prediction, rough = make_prediction(), poses(2, 3)
    updated = update_with_gain(gain)(prediction, seen(rough), torch.randn(2, 3, DIM))
    pose, answer = (pose_from_quat_trans(each.pose_quat, each.pose_trans) for each in (updated, prediction))
    torch.testing.assert_close(pose, in_view0(answer if gain else rough), atol=1e-4, rtol=0)


def test_half_a_gain_ends_half_way():
    prediction, rough = make_prediction(), in_view0(poses(2, 3))
    near = rough.clone()
    turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.1, 0.0]))
    near[:, 1:, :3, :3] = near[:, 1:, :3, :3] @ turn
    near[:, 1:, :3, 3] += torch.tensor([1.0, 0.2, -2.0])
    quat = roma.rotmat_to_unitquat(near[..., :3, :3])
    answer = with_poses(prediction, quat, near[..., :3, 3])
    updated = update_with_gain(0.5)(answer, seen(poses(2, 3)), torch.randn(2, 3, DIM))
    shift = (updated.pose_trans - rough[..., :3, 3])[:, 1:]
    torch.testing.assert_close(shift, torch.tensor([0.5, 0.1, -1.0]).expand(2, 2, 3), atol=1e-4, rtol=0)
    turned = relative_pose(rough, pose_from_quat_trans(updated.pose_quat, updated.pose_trans))[:, 1:]
    torch.testing.assert_close(rotation_angle(turned[..., :3, :3]), torch.full((2, 2), 0.05), atol=1e-3, rtol=0)
    moved = pose_from_quat_trans(updated.pose_quat, updated.pose_trans)
    points = torch.einsum("bvij,bvhwj->bvhwi", moved[..., :3, :3], updated.points_view)
    torch.testing.assert_close(updated.points_world, points + moved[..., None, None, :3, 3], atol=1e-4, rtol=1e-4)


def test_samples_without_rough_poses_keep_the_answer_to_the_bit_and_views_their_place_from_view0():
    prediction, known = make_prediction(), ALL.clone()
    known[0], known[1, 2] = False, False
    observation = dataclasses.replace(seen(poses(2, 3)), pose_given=known)
    updated = update_with_gain(0.3)(prediction, observation, torch.randn(2, 3, DIM))
    for field in FIELDS:
        assert torch.equal(getattr(updated, field)[0], getattr(prediction, field)[0]), field
    pose, answer = (
        in_view0(pose_from_quat_trans(each.pose_quat, each.pose_trans))[1] for each in (updated, prediction)
    )
    torch.testing.assert_close(updated.pose_trans[1, 0], torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pose[2], answer[2], atol=1e-4, rtol=0)
    assert not torch.allclose(pose[1], answer[1], atol=1e-2)


def test_a_rough_pose_that_is_not_given_has_no_influence():
    update, prediction, features = update_with_gain(0.3), make_prediction(), torch.randn(2, 3, DIM)
    torch.nn.init.normal_(update.mlp[-1].weight)
    known = torch.tensor([[True, True, False], [False, True, True]])
    pose = poses(2, 3)
    moved, unknown = (
        torch.where(known[..., None, None], pose, other) for other in (poses(2, 1) @ pose, torch.full((), torch.nan))
    )
    first, *others = (
        update(prediction, dataclasses.replace(seen(each), pose_given=known), features)
        for each in (pose, moved, unknown)
    )
    for field in FIELDS:
        for other in others:
            assert torch.equal(getattr(first, field), getattr(other, field)), field


def learned_errors(states_accuracy: bool) -> tuple[float, float, float]:
    """Mean errors of updated, rough and answered positions; one level of roughness per sample."""
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
        sigma = level.expand(2, 3, 2) if states_accuracy else None
        observation = dataclasses.replace(seen(rough), pose_sigma=sigma)
        updated = update(with_poses(template, quat, answer[..., :3, 3]), observation, features)
        error = [
            (trans - true[..., :3, 3])[:, 1:].norm(dim=-1).mean()
            for trans in (updated.pose_trans, rough[..., :3, 3], answer[..., :3, 3])
        ]
        optimizer.zero_grad()
        error[0].backward()
        optimizer.step()
        errors.append([float(value.detach()) for value in error])
    return tuple(sum(column[-150:]) / 150 for column in zip(*errors, strict=True))


def test_it_learns_whom_to_believe():
    """From disagreement alone it is better than either source; from stated accuracy still better."""
    guessed, rough, answer = learned_errors(states_accuracy=False)
    assert guessed < 0.8 * min(rough, answer)
    told, *_ = learned_errors(states_accuracy=True)
    assert told < 0.97 * guessed


@pytest.fixture(scope="module")
def model() -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny", {"inputs": {"pose": True}, "pose_update": True}))


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


@torch.no_grad()
def test_a_relative_pose_takes_two_that_are_metric():
    prediction, observation = make_prediction(), seen(poses(2, 3))
    given = torch.tensor([[True, True, True], [False, True, True]])
    is_metric = torch.tensor([[True, True, False], [True, True, True]])
    observation = dataclasses.replace(observation, pose_given=given, pose_is_metric=is_metric)
    updated = update_with_gain(0.3)(prediction, observation, torch.randn(2, 3, DIM))
    pose, answer = (in_view0(pose_from_quat_trans(each.pose_quat, each.pose_trans)) for each in (updated, prediction))
    moved = (pose - answer).abs().amax(dim=(-2, -1)) > 1e-3
    assert moved[:, 1:].tolist() == [[True, False], [False, False]]


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


@torch.no_grad()
def test_the_network_answers_from_the_images(model):
    """Pose priors change nothing but poses: predicted depth and rays do not depend on them."""
    observation = make_observation(2, 3, 28, 42)
    without, told = model.eval()(observation), model(dataclasses.replace(observation, pose_prior=poses(2, 3)))
    for field in set(FIELDS) - {"pose_trans", "pose_quat", "points_world"}:
        assert torch.equal(getattr(without, field), getattr(told, field)), field
    assert not any("cam_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pose_update": True}, r"model\.pose_update.*model\.inputs\.pose"),
        ({"inputs": {"pose": True}, "pose_update": True, "pose_correction": True}, "does not encode pose priors"),
    ],
)
def test_what_it_goes_with(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("mapanything_tiny", overrides)


@torch.no_grad()
def test_updated_cars_keep_their_rig(model):
    rig = poses(1, 4).repeat(1, 2, 1, 1)
    observation = dataclasses.replace(
        make_observation(1, 8, 28, 42),
        pose_prior=poses(1, 2).repeat_interleave(4, dim=1) @ rig,
        rig_pose=rig,
        agent=torch.arange(8)[None] // 4,
        slot=torch.arange(8)[None] % 4,
    )
    overrides = {"inputs": {"pose": True}, "pose_update": True, "rig_constraint": True}
    rigid = MapAnything(load_config("mapanything_tiny", overrides)).eval()
    rigid.load_state_dict(model.state_dict())
    answer = rigid(observation)
    pose = pose_from_quat_trans(answer.pose_quat, answer.pose_trans).unflatten(1, (2, 4))
    expected = rig.unflatten(1, (2, 4))
    torch.testing.assert_close(
        relative_pose(pose[:, :, :1], pose), relative_pose(expected[:, :, :1], expected), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(pose[:, 0, 0], torch.eye(4)[None], atol=1e-5, rtol=0)
    without = rigid(dataclasses.replace(observation, pose_prior=None))
    assert not torch.allclose(without.pose_trans[:, 4:], answer.pose_trans[:, 4:], atol=0.1)
