from __future__ import annotations

import dataclasses

import pytest
import roma
import torch
from torch import Tensor

from coopmap.config import ConfigError
from coopmap.geometry import invert, pose_from_quat_trans, relative_pose, transform_points
from coopmap.models import MapAnything
from coopmap.models.addons.rig_constraint import constrain_to_rig, mean_quat
from coopmap.types import Observation, Prediction

from .support import load_config, make_observation
from .test_mapanything import objective

SIZE = 28, 42


def random_poses(*shape: int, seed: int, spread_m: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=generator), dim=-1)
    return pose_from_quat_trans(quat, spread_m * torch.randn(*shape, 3, generator=generator))


def observe(batch: int, agents: int) -> Observation:
    """Cars with different rigs."""
    views = 4 * agents
    return dataclasses.replace(
        make_observation(batch, views, *SIZE),
        agent=torch.arange(views).expand(batch, -1) // 4,
        slot=torch.arange(views).expand(batch, -1) % 4,
        rig_pose=random_poses(batch, views, seed=1, spread_m=1.5),
    )


def predict(pose: Tensor, quat_sign: float = 1.0) -> Prediction:
    """A prediction with these poses and noise for everything else."""
    generator = torch.Generator().manual_seed(2)
    pixels = (*pose.shape[:2], *SIZE)
    points = torch.randn(*pixels, 3, generator=generator)
    depth = points.norm(dim=-1)
    return Prediction(
        rays=points / depth[..., None],
        depth=depth,
        pose_trans=pose[..., :3, 3],
        pose_quat=quat_sign * roma.rotmat_to_unitquat(pose[..., :3, :3]),
        scale=torch.ones(len(pose)),
        confidence=depth,
        mask_logits=depth,
        points_view=points,
        points_world=points,
    )


def pose_of(prediction: Prediction) -> Tensor:
    return pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)


def consistent_poses(observation: Observation, agents: Tensor) -> Tensor:
    """``T_view0_camera`` of cars at ``agents``, ``(b, n, 4, 4)`` in any frame."""
    pose = agents.repeat_interleave(4, dim=1) @ observation.rig_pose
    return relative_pose(pose[:, :1], pose)


def test_poses_that_fit_the_rig_stay_as_they_are():
    observation = observe(2, 3)
    pose = consistent_poses(observation, random_poses(2, 3, seed=3, spread_m=30))
    constrained = constrain_to_rig(predict(pose), observation)
    torch.testing.assert_close(pose_of(constrained), pose, rtol=1e-5, atol=1e-4)


def test_cars_cannot_bend_and_view_0_is_the_identity():
    observation = observe(2, 3)
    prediction = predict(random_poses(2, 12, seed=4, spread_m=20))
    constrained = constrain_to_rig(prediction, observation)
    pose, rig = pose_of(constrained).unflatten(1, (3, 4)), observation.rig_pose.unflatten(1, (3, 4))
    torch.testing.assert_close(
        relative_pose(pose[:, :, :1], pose), relative_pose(rig[:, :, :1], rig), rtol=0, atol=2e-5
    )
    torch.testing.assert_close(pose[:, 0, 0], torch.eye(4).expand(2, 4, 4), rtol=0, atol=1e-6)
    moved = transform_points(pose.flatten(1, 2), prediction.points_view.flatten(2, 3))
    torch.testing.assert_close(constrained.points_world.flatten(2, 3), moved, rtol=1e-5, atol=1e-4)
    for name in ("rays", "depth", "scale", "confidence", "mask_logits", "points_view"):
        assert getattr(constrained, name) is getattr(prediction, name)


def test_estimates_of_a_car_are_averaged():
    """Cameras that put their car 1 m to either side, or turn it by 10 degrees to either side, cancel out."""
    observation = observe(1, 2)
    agents = random_poses(1, 2, seed=5, spread_m=30)
    exact = consistent_poses(observation, agents)
    rig = observation.rig_pose
    shift = torch.tensor([0.0, 0, 0, 0, 1, -1, 1, -1])[:, None] * torch.tensor([1.0, 0, 0])
    turn = roma.rotvec_to_rotmat(
        torch.deg2rad(torch.tensor([0.0, 0, 0, 0, 10, 10, -10, -10]))[:, None] * torch.eye(3)[1]
    )
    error = torch.eye(4).repeat(8, 1, 1)
    error[:, :3, :3], error[:, :3, 3] = turn, shift
    cars = exact @ invert(rig) @ error  # the car is misplaced in its own frame
    constrained = constrain_to_rig(predict(cars @ rig), observation)
    torch.testing.assert_close(pose_of(constrained), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (1, -1, 1, -1), (-1, 1, 1, 1)])
def test_signs_of_quaternions_do_not_matter(signs):
    observation = observe(1, 2)
    prediction = predict(random_poses(1, 8, seed=6, spread_m=5))
    flipped = dataclasses.replace(prediction, pose_quat=prediction.pose_quat * torch.tensor(signs * 2)[:, None])
    torch.testing.assert_close(
        pose_of(constrain_to_rig(flipped, observation)), pose_of(constrain_to_rig(prediction, observation))
    )


def test_mean_rotation_is_near_the_chordal_mean():
    generator = torch.Generator().manual_seed(7)
    turns = roma.rotvec_to_unitquat(0.1 * torch.randn(50, 4, 3, generator=generator, dtype=torch.float64))
    center = torch.nn.functional.normalize(torch.randn(50, 1, 4, generator=generator, dtype=torch.float64), dim=-1)
    base = roma.quat_product(center, turns)
    chordal = roma.special_procrustes(roma.unitquat_to_rotmat(base).mean(dim=1))
    mean = roma.unitquat_to_rotmat(mean_quat(base))
    assert roma.rotmat_geodesic_distance(mean, chordal).max() < 1e-3


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("noise", [0.0, 1e-8, -1e-8])
def test_a_half_turn_between_cameras_has_one_answer(axis, noise):
    """There neither sign is nearer; rounding, or the sign that a network happens to predict, decides nothing."""
    first, turned = torch.tensor([0.0, 0, 0, 1]), torch.eye(4)[axis]
    turned[3] = noise
    for sign in (1, -1):
        assert torch.equal(mean_quat(torch.stack([first, sign * turned])), first)
    near = torch.tensor([0.0, 0, 0, 1]) * 1e-3 + turned  # not quite: the mean lies between
    assert mean_quat(torch.stack([first, near / near.norm()]))[3] == pytest.approx(0.5**0.5, abs=1e-3)


def test_constraint_keeps_agreement_between_all_cameras_and_gradients_finite():
    """At zero spread, where decompositions have no gradient; every camera of either car pulls equally."""
    observation = observe(1, 2)
    pose = consistent_poses(observation, random_poses(1, 2, seed=9, spread_m=10))
    prediction = predict(pose)
    quat, trans = prediction.pose_quat.requires_grad_(), prediction.pose_trans.clone().requires_grad_()
    constrained = constrain_to_rig(dataclasses.replace(prediction, pose_quat=quat, pose_trans=trans), observation)
    constrained.pose_trans[0, 4:].sum().backward()
    torch.testing.assert_close(trans.grad[0, 4:], torch.ones(4, 3))
    torch.testing.assert_close(trans.grad[0, :4], -torch.ones(4, 3))
    assert quat.grad.isfinite().all()
    assert quat.grad[0].any(dim=-1).all()


def test_the_frame_that_the_network_answers_in_does_not_matter():
    observation = observe(2, 3)
    pose = random_poses(2, 12, seed=11, spread_m=10)
    moved = random_poses(2, 1, seed=12, spread_m=20) @ pose
    torch.testing.assert_close(
        pose_of(constrain_to_rig(predict(moved), observation)),
        pose_of(constrain_to_rig(predict(pose), observation)),
        rtol=0,
        atol=1e-4,
    )


def test_gradient_agrees_with_finite_differences():
    observation = observe(1, 2).map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    prediction = predict(random_poses(1, 8, seed=10, spread_m=5)).map(Tensor.double)

    def pose(quat: Tensor, trans: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(quat, dim=-1)
        return pose_of(constrain_to_rig(dataclasses.replace(prediction, pose_quat=unit, pose_trans=trans), observation))

    inputs = prediction.pose_quat.requires_grad_(), prediction.pose_trans.clone().requires_grad_()
    assert torch.autograd.gradcheck(pose, inputs)


def test_panoramas_and_incomplete_cars_are_refused():
    prediction = predict(random_poses(1, 6, seed=11, spread_m=5))
    with pytest.raises(ValueError, match=r"data.layout=cameras"):
        constrain_to_rig(prediction, make_observation(1, 6, *SIZE))
    rig = random_poses(1, 6, seed=12, spread_m=1)
    with pytest.raises(ValueError, match=r"4 cameras per agent.*6 views"):
        constrain_to_rig(prediction, dataclasses.replace(make_observation(1, 6, *SIZE), rig_pose=rig))


@pytest.fixture
def free() -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny"))


def test_option_of_the_model(free):
    torch.manual_seed(0)
    model = MapAnything(load_config("mapanything_tiny", {"rig_constraint": True}))
    observation = observe(1, 2)
    expected = constrain_to_rig(free(observation), observation)
    prediction = model(observation)
    torch.testing.assert_close(pose_of(prediction), pose_of(expected))
    torch.testing.assert_close(prediction.points_world, expected.points_world)
    objective(prediction).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_an_embedding_of_the_reference_agent_is_refused_where_no_reference_is_marked():
    with pytest.raises(ConfigError, match=r"model\.view_embedding=True: expected false without .*mark_reference"):
        load_config("mapanything_tiny", {"view_embedding": True, "info_sharing": {"mark_reference": False}})


def test_view_embedding_is_nothing_at_first_and_then_tells_slots_and_cars(free):
    torch.manual_seed(0)
    model = MapAnything(
        load_config("mapanything_tiny", {"view_embedding": True, "info_sharing": {"encoder_tokens": True}})
    )
    torch.manual_seed(0)
    plain = MapAnything(load_config("mapanything_tiny", {"info_sharing": {"encoder_tokens": True}}))
    observation = observe(1, 2)
    prediction = model(observation)
    assert torch.equal(prediction.depth, plain(observation).depth)
    objective(prediction).backward()
    assert model.view_embedding.slot.grad.any(dim=-1).all()
    assert model.view_embedding.agent.grad.any(dim=-1).all()

    with torch.no_grad():
        for parameter in model.view_embedding.parameters():
            parameter.normal_()
        features = model.view_embedding(observation)
        slot, agent = model.view_embedding.slot, model.view_embedding.agent
        torch.testing.assert_close(features[0, 2], slot[2] + agent[0])
        torch.testing.assert_close(features[0, 7], slot[3] + agent[1])
        other_slots = dataclasses.replace(observation, slot=observation.slot.flip(1))
        assert (model(other_slots).depth - model(observation).depth).abs().max() > 1e-2


def test_view_embedding_needs_single_cameras():
    model = MapAnything(load_config("mapanything_tiny", {"view_embedding": True}))
    with pytest.raises(ValueError, match=r"data.layout=cameras"):
        model(make_observation(1, 2))
