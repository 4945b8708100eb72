"""Known directions of gravity in matching: agents on slopes, whose roads are not level to each other."""

import dataclasses
import math

import pytest
import roma
import torch
from torch import Tensor

from coopmap.config import ConfigError
from coopmap.config.model import MatchingConfig, ModelConfig
from coopmap.evaluation.bound import Bound
from coopmap.evaluation.probes.cells import answer_without
from coopmap.geometry.se3 import pose_from_quat_trans
from coopmap.metrics import pair_errors, predicted_pose
from coopmap.models import MapAnything
from coopmap.models.addons.matching.cells import down_directions
from coopmap.types import Observation, Target

from ..rooms import exact_prediction, knowing_matches, observation_of, room, three_poses
from .support import load_config, make_observation

LEVEL = torch.tensor([0.0, 1.0, 0.0])


def tiny(**keys: object) -> MapAnything:
    torch.manual_seed(0)
    changes = {"matching": {"enabled": True, **keys}, "pose_from": "alignment"}
    return MapAnything(load_config("mapanything_tiny", changes)).eval()


def on_slopes(degrees: float = 6.0) -> Target:
    """A room in which every agent is tilted another way."""
    axes = torch.tensor([[1.0, 0, 0], [-0.6, 0, 0.8], [0, 0, -1.0]])
    tilt = pose_from_quat_trans(roma.rotvec_to_unitquat(math.radians(degrees) * axes), torch.zeros(3, 3))
    return room(three_poses() @ tilt, 112, 448)  # cells of 11 degrees


def feeling(target: Target) -> Observation:
    """With the directions of gravity that agents so placed measure."""
    return dataclasses.replace(observation_of(target), gravity=target.pose[:, :, 1, :3])


def configured(gravity: bool) -> ModelConfig:
    return ModelConfig(
        matching=MatchingConfig(enabled=True, gravity=gravity, tilt_sigma_deg=0.3), pose_from="alignment"
    )


def tilt_deg(pose: Tensor, target: Target) -> Tensor:
    """How far apart all agents hold the vertical of agent 0 through their poses."""
    down = torch.einsum("vij,vj->vi", pose[0, :, :3, :3].double(), target.pose[0, :, 1, :3].double())
    return torch.rad2deg((down - down[0]).norm(dim=-1))


def test_off_directions_of_gravity_change_nothing():
    observation, model = make_observation(1, 3, 28, 56), tiny()
    told = dataclasses.replace(observation, gravity=torch.nn.functional.normalize(torch.ones(1, 3, 3), dim=-1))
    without, found = model(observation), model(told)
    for name in ("pose_trans", "pose_quat"):
        assert torch.equal(getattr(found, name), getattr(without, name))
    assert torch.equal(found.matches.information, without.matches.information)


def test_of_level_agents_they_change_nothing():
    observation = make_observation(1, 3, 28, 56)
    told = dataclasses.replace(observation, gravity=LEVEL.expand(1, 3, 3))
    without, found = tiny()(observation), tiny(gravity=True)(told)
    assert torch.equal(found.matches.pose, without.matches.pose)
    torch.testing.assert_close(found.pose_trans, without.pose_trans)
    torch.testing.assert_close(found.pose_quat, without.pose_quat)


def test_on_they_count_in_training_too():
    observation = make_observation(1, 3, 28, 56)
    slopes = torch.nn.functional.normalize(torch.tensor([[[0.1, 1, 0], [0, 1, -0.1], [0, 1, 0]]]), dim=-1)
    poses = []
    for gravity in (LEVEL.expand(1, 3, 3), slopes):
        prediction = tiny(gravity=True, tilt_sigma_deg=0.1).train()(dataclasses.replace(observation, gravity=gravity))
        prediction.matches.pose.sum().backward()
        poses.append(prediction.matches.pose)
    assert not torch.allclose(*poses, atol=1e-3)


def test_inputs_that_do_not_say_where_down_is_are_refused():
    with pytest.raises(ConfigError, match=r"model\.matching\.gravity=true: the inputs do not say where down is"):
        tiny(gravity=True)(make_observation(1, 2, 28, 56))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"model\.matching\.gravity=True: .*model\.matching\.tilt_sigma_deg"):
        MatchingConfig(gravity=True, tilt_sigma_deg=None)
    with pytest.raises(ConfigError, match=r"model\.matching\.gravity=True: .*model\.matching\.enabled"):
        MatchingConfig(gravity=True, enabled=False)


def test_cameras_say_it_in_the_frame_of_their_agent():
    """The first of four cameras, which is rolled by 90 degrees: what is to its right is down."""
    observation = make_observation(1, 8, 28, 56)
    rolled = pose_from_quat_trans(roma.rotvec_to_unitquat(torch.tensor([0, 0, math.pi / 2])), torch.ones(3))
    observation = dataclasses.replace(
        observation,
        rig_pose=rolled.expand(1, 8, 4, 4),
        slot=torch.arange(4).repeat(2)[None],
        gravity=torch.tensor([1.0, 0, 0]).expand(1, 8, 3),
    )
    torch.testing.assert_close(down_directions(observation), LEVEL.expand(1, 2, 3), atol=1e-6, rtol=0)


def test_agents_on_slopes_are_placed_as_they_stand():
    """True matches of coarse cells; taken for level, agents would be off by their slopes."""
    target = on_slopes()
    prediction = dataclasses.replace(exact_prediction(target), matches=knowing_matches(target))
    nothing = torch.zeros(1, 3, 256, dtype=torch.bool)
    tilts, errors = [], []
    for gravity in (True, False):
        answer = predicted_pose(answer_without(nothing, prediction, feeling(target), configured(gravity)))
        tilts.append(float(tilt_deg(answer, target).max()))
        errors.append(float(pair_errors(answer, target.pose)["rot_deg"].max()))
    assert tilts[0] < 0.3
    assert tilts[1] > 3
    assert errors[0] < 2.0  # yaw, from cells of 11 degrees
    assert errors[1] > 4.0


def test_bounds_are_of_the_same_problem():
    target = on_slopes()
    tilts = []
    for gravity in (True, False):
        found = Bound(configured(gravity), dense_share=0.4).measure(feeling(target), exact_prediction(target), target)
        tilts.append(float(tilt_deg(found["bound"][0][None, 0], target).max()))
    assert tilts[0] < 0.2
    assert tilts[1] > 3 * tilts[0]
