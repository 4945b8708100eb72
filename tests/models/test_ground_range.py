"""The range of the ground in each patch's direction as an input."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.panorama import surface_range
from coopmap.models import MapAnything
from coopmap.models.addons.ground_range import GroundRange, ground_nearness
from coopmap.types import Observation

from .support import load_config, make_observation

PATCH = 8


def panorama(height_m: float, views: int = 2) -> Observation:
    rays = torch.from_numpy(camera_rays(PanoramaCamera(80, 320, math.radians(90)))).float()
    images = torch.zeros(1, views, 3, 80, 320)
    return Observation(images, rays.expand(1, views, -1, -1, -1), ground_height_m=torch.full((1, views), height_m))


@given(st.floats(1.2, 4.0))
def test_it_is_the_range_to_the_bowls_plane(height_m: float):
    observation = panorama(height_m)
    plane = torch.from_numpy(surface_range(observation.rays[0, 0].double().numpy(), "bowl", 1e6, height_m))
    expected = torch.where(observation.rays[0, 0, ..., 1] > 0, 1 / plane, 0.0).unfold(0, 4, 4).unfold(1, 4, 4)
    found = ground_nearness(observation, PATCH)[0, 1].view(10, 40, 2, 2).permute(0, 2, 1, 3).reshape(20, 80)
    torch.testing.assert_close(found, expected.mean(dim=(-2, -1)).to(found), atol=1e-6, rtol=1e-5)
    assert (found[:10] == 0).all()
    assert (found[10:] > 0).all()


def test_cameras_look_from_their_own_height_and_direction():
    """A camera 0.5 m above the LiDAR and pitched down by 30 degrees sees the ground on its axis at 2 h."""
    observation = make_observation(1, 4, PATCH * 3, PATCH * 3)
    rays = torch.zeros_like(observation.rays)
    rays[..., 2] = 1.0
    sine, cosine = math.sin(math.radians(30)), math.cos(math.radians(30))
    rig = torch.eye(4).repeat(1, 4, 1, 1)
    rig[:, :, 1:3, 1:3] = torch.tensor([[cosine, sine], [-sine, cosine]])
    rig[:, :, 1, 3] = -0.5
    observation = dataclasses.replace(observation, rays=rays, rig_pose=rig, ground_height_m=torch.full((1, 4), 1.5))
    torch.testing.assert_close(ground_nearness(observation, PATCH), torch.full((1, 4, 9, 4), 1 / 4.0))


def test_in_a_mosaic_rays_start_at_the_cameras():
    observation = make_observation(1, 1, PATCH, PATCH * 8)
    rays = torch.nn.functional.normalize(torch.tensor([0.0, 0.6, 0.8]), dim=0).expand_as(observation.rays)
    pose = torch.eye(4).repeat(1, 1, 4, 1, 1)
    pose[0, 0, :, 1, 3] = torch.tensor([0.1, 0.2, 0.3, 0.4])  # below the origin: front, left, rear, right
    observation = dataclasses.replace(observation, rays=rays, camera_pose=pose, ground_height_m=torch.full((1, 1), 2.0))
    columns = ground_nearness(observation, PATCH)[0, 0, :, 0]
    expected = 0.6 / (2.0 - torch.tensor([0.2, 0.1, 0.4, 0.3]))  # left, front, right, rear
    torch.testing.assert_close(columns, expected.repeat_interleave(2))


@torch.no_grad()
def test_nothing_changes_at_first_or_without_calibration():
    torch.manual_seed(0)
    plain = MapAnything(load_config("mapanything_tiny", {})).eval()
    torch.manual_seed(0)
    told = MapAnything(load_config("mapanything_tiny", {"ground_range": True})).eval()
    observation = make_observation(1, 2, 14 * 2, 14 * 8)
    known = dataclasses.replace(observation, ground_height_m=torch.full((1, 2), 1.9))
    assert torch.equal(plain(known).depth, told(known).depth)
    torch.nn.init.normal_(told.ground_range.output.weight)
    assert not torch.equal(plain(known).depth, told(known).depth)
    assert torch.equal(plain(observation).depth, told(observation).depth)


def test_every_parameter_learns():
    addon = GroundRange(16, PATCH)
    torch.nn.init.normal_(addon.output.weight)
    addon(ground_nearness(panorama(1.9), PATCH)).square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in addon.parameters())


def test_it_needs_a_height():
    with pytest.raises(ValueError, match="ground_height_m"):
        ground_nearness(dataclasses.replace(panorama(1.9), ground_height_m=None), PATCH)
