"""Lines of sight as features: direction and moment."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap import load_config as load_whole_config
from coopmap.config import ConfigError
from coopmap.models import MapAnything, load_weights
from coopmap.models.addons.plucker import PluckerEncoding, patch_lines
from coopmap.models.naming import canonical_names
from coopmap.types import Observation

from .support import golden_model, load_config, make_observation

PATCH = 14
RAYS = {"rays": True, "depth": False, "pose": False}


def mosaic_observation(views: int = 2, rows: int = 2, columns: int = 8) -> Observation:
    """Random images; each camera looks straight ahead, from a place of its own."""
    observation = make_observation(1, views, PATCH * rows, PATCH * columns)
    pose = torch.eye(4).repeat(1, views, 4, 1, 1)
    pose[..., :3, 3] = torch.randn(1, views, 4, 3, generator=torch.Generator().manual_seed(1))
    return dataclasses.replace(observation, camera_pose=pose)


def tiny(plucker: bool) -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny", {"inputs": RAYS, "plucker": plucker}))


def assert_same(model: MapAnything, other: MapAnything, observation: Observation) -> None:
    first, second = model.eval()(observation), other.eval()(observation)
    for field in dataclasses.fields(first):
        if field.name != "matches":
            assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_lines_worked_out_by_hand():
    """Columns belong to left, front, right and rear; the moment is that about the origin."""
    observation = mosaic_observation(views=1)
    rays = torch.zeros_like(observation.rays)
    rays[..., 2] = 1.0
    pose = torch.eye(4).repeat(1, 1, 4, 1, 1)
    pose[0, 0, :, :3, 3] = torch.tensor([[0, 1, 3], [-2, 0, 0], [0, 0, -1], [2, 0.5, 0]])  # front, left, rear, right
    lines = patch_lines(dataclasses.replace(observation, rays=rays, camera_pose=pose), PATCH)[0, 0].unflatten(0, (2, 8))
    assert torch.equal(lines[..., :3], torch.tensor([0.0, 0, 1]).expand(2, 8, 3))
    # (x, y, z) x (0, 0, 1) = (y, -x, 0)
    moments = torch.tensor([[0, 2, 0], [1, 0, 0], [0.5, -2, 0], [0, 0, 0]]).repeat_interleave(2, dim=0)
    assert torch.equal(lines[..., 3:], moments.expand(2, 8, 3))


def test_a_line_is_the_same_from_any_of_its_points():
    observation = mosaic_observation()
    rays = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]), dim=0).expand_as(observation.rays)
    ahead = observation.camera_pose.clone()
    ahead[..., :3, 3] += 5 * rays[0, 0, 0, 0]
    first, second = (
        patch_lines(dataclasses.replace(observation, rays=rays, camera_pose=pose), PATCH)
        for pose in (observation.camera_pose, ahead)
    )
    torch.testing.assert_close(first, second)


@torch.no_grad()
def test_nothing_changes_at_first_and_other_weights_start_alike():
    plain, encoded = tiny(plucker=False), tiny(plucker=True)
    assert all(torch.equal(value, encoded.state_dict()[name]) for name, value in plain.state_dict().items())
    assert_same(plain, encoded, mosaic_observation())


@torch.no_grad()
@pytest.mark.parametrize("name", ["v1_tiny", "v11_tiny"])
def test_golden_weights_load_strictly_and_give_the_same_numbers(name):
    plain = golden_model(name, RAYS)
    state = plain.state_dict()
    encoded = MapAnything(dataclasses.replace(plain.cfg, plucker=True))
    for model in (MapAnything(plain.cfg), encoded):
        report = load_weights(model, {key: state[key].clone() for key in canonical_names(plain)})
        assert not report.mismatch
        assert_same(plain, model, mosaic_observation())


@torch.no_grad()
def test_once_trained_it_counts_where_rays_are_given_and_nowhere_else():
    plain, encoded = tiny(plucker=False), tiny(plucker=True)
    torch.nn.init.normal_(encoded.plucker.output.weight)
    observation = mosaic_observation()
    hidden = dataclasses.replace(observation, rays_given=torch.zeros(1, 2, dtype=torch.bool))
    assert_same(plain, encoded, hidden)
    moved = observation.camera_pose.clone()
    moved[..., :3, 3] += 0.5
    elsewhere = dataclasses.replace(observation, camera_pose=moved)
    assert (encoded(observation).depth - encoded(elsewhere).depth).abs().max() > 1e-6


def test_every_parameter_gets_a_gradient():
    model = tiny(plucker=True)
    for layer in (model.plucker.hidden, model.plucker.output):
        torch.nn.init.normal_(layer.weight)
    model(mosaic_observation()).points_world.square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in model.plucker.parameters())
    unseen = tiny(plucker=True)
    hidden = dataclasses.replace(mosaic_observation(), rays_given=torch.zeros(1, 2, dtype=torch.bool))
    unseen(hidden).points_world.square().mean().backward()
    assert all(value.grad is not None for value in unseen.plucker.parameters())  # DDP waits for every one


def test_other_views_are_refused():
    encoding, observation = PluckerEncoding(8, PATCH), make_observation(1, 2, 28, 112)
    with pytest.raises(ValueError, match=r"data\.layout=mosaic"):
        encoding.after_geometry(torch.zeros(1, 2, 16, 8), observation)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.plucker=true", "task=calibrated"], r"model\.plucker=true .* data\.layout=mosaic"),
        (["experiment=mosaic_posefix", "model.inputs.rays=false"], r"model\.plucker=True: expected false without"),
        (["experiment=mosaic_posefix", "model.heads.circular=true"], r"circular=true is for 360.*layout=mosaic"),
        (["experiment=mosaic_posefix", "model.spherical_encoding=true"], r"spherical.*is for 360.*layout=mosaic"),
        (
            ["data.layout=mosaic", "data.augmentation.yaw_roll=true"],
            r"yaw_roll=True turns the frame of a mosaic.*task=calibrated, or data\.augmentation\.yaw_roll=false",
        ),
        (
            ["data.layout=mosaic", "data.augmentation.yaw_roll=false", "data.augmentation.tilt_deg=3"],
            r"tilt_deg=3.0 turns .*data\.augmentation\.tilt_deg=0",
        ),
        (["experiment=mosaic_posefix", "data.panorama.geometry=central"], r"geometry=central: expected content"),
        (["experiment=mosaic_posefix", "data.mosaic.width=281"], r"data\.mosaic\.width=281: .*multiple of the patch"),
        (["experiment=mosaic_posefix", "model/fusion=mean"], r"fusion\.kind=mean works on data\.layout=grouped"),
    ],
)
def test_what_cannot_work_with_mosaics_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_whole_config(overrides)


def test_images_alone_are_allowed_where_the_frame_stands_still():
    config = load_whole_config(["data.layout=mosaic", "data.augmentation.yaw_roll=false"])
    assert not config.task.may_give("rays")
