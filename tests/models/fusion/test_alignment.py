"""A landmark's patch feature lands in the cell of the panorama that geometry predicts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from coopmap.geometry.cameras import camera_rays
from coopmap.geometry.panorama import look_up
from coopmap.geometry.stitching import warp_cameras
from coopmap.models.fusion import group_cameras
from coopmap.types import Observation

from .scenes import AZIMUTHS_DEG, KINDS, POSITIONS_M, make_model, make_rig, observe, panorama_spec

PANORAMA, CAMERA = (252, 1008), (294, 392)
CELL_DEG = 5.0
GROUND_M, RADIUS_M = 1.9, 30.0
LANDMARKS_DEG = ((-22.5, 2.5), (2.5, -17.5), (17.5, -7.5))
"""Azimuth from the camera's own and elevation; in the middle of a cell or close to it."""


def place_landmark(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """The point of the road or, above the horizon and beyond 30 m, of the sphere in this direction; agent frame."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    direction = np.array(
        [math.sin(azimuth) * math.cos(elevation), -math.sin(elevation), math.cos(azimuth) * math.cos(elevation)]
    )
    distance = min(RADIUS_M, GROUND_M / math.sin(-elevation)) if elevation < 0 else RADIUS_M
    return distance * direction


def project(point: np.ndarray, slot: int) -> tuple[float, float]:
    """Pixel in a camera that is turned about the vertical only."""
    yaw = math.radians(AZIMUTHS_DEG[slot])
    x, y, z = point - np.array(POSITIONS_M[slot])
    right, forward = math.cos(yaw) * x - math.sin(yaw) * z, math.sin(yaw) * x + math.cos(yaw) * z
    focal = CAMERA[1] / 2 / math.tan(math.radians(50))
    return CAMERA[1] / 2 + focal * right / forward, CAMERA[0] / 2 + focal * y / forward


def paint(slot: int, u: float, v: float) -> np.ndarray:
    """A red spot, half a patch wide, in one of the four black images."""
    rows, columns = np.mgrid[: CAMERA[0], : CAMERA[1]] + 0.5
    images = np.zeros((4, *CAMERA, 3), np.uint8)
    images[slot, ..., 0] = np.rint(255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 7.0**2)))
    return images


def observe_landmark(layout: str, images: np.ndarray) -> Observation:
    observation = observe(layout, PANORAMA, CAMERA)
    if layout == "warped":
        rig, spec = make_rig(CAMERA), panorama_spec(PANORAMA)
        pixel, angle = look_up(rig, camera_rays(spec.camera), spec)
        images = warp_cameras(np.nan_to_num(pixel).astype(np.float32), images, rig, spec)
        images[~np.isfinite(angle)] = 0
    tensor = torch.from_numpy(images).float().movedim(-1, 1) / 255
    return dataclasses.replace(observation, images=tensor[None, None])


@pytest.fixture(scope="module")
def redness() -> dict:
    """Models whose patch embedding says how red a patch is."""
    models = {kind: make_model({"kind": kind, "directions": False}).requires_grad_(False) for kind in KINDS}
    for model in models.values():
        embed = model.encoder.model.patch_embed.proj
        embed.weight.zero_()
        embed.bias.zero_()
        embed.weight[0, 0] = 1 / 14**2
        model.encoder.model.pos_embed.zero_()
    return models


@pytest.mark.parametrize("landmark", LANDMARKS_DEG)
@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_landmark_lands_in_its_cell(redness, kind, slot, landmark):
    azimuth = (AZIMUTHS_DEG[slot] + landmark[0] + 180) % 360 - 180
    images = paint(slot, *project(place_landmark(azimuth, landmark[1]), slot))
    model = redness[kind]
    cameras = group_cameras(observe_landmark(model.fusion.layout, images), model.fusion.layout)
    response = model.fusion(cameras, model.encoder.model)[0, 1:, 0].view(18, 72)

    column, row = (azimuth + 180) / CELL_DEG, (45 - landmark[1]) / CELL_DEG
    brightest = divmod(int(response.argmax()), 72)
    assert brightest == (math.floor(row), math.floor(column))
    mass = response / response.sum()
    around = (torch.arange(72) + 0.5 - column + 36) % 72 - 36  # columns go round
    assert abs((mass.sum(dim=0) * around).sum()) < 0.3
    assert abs((mass.sum(dim=1) * (torch.arange(18) + 0.5 - row)).sum()) < 0.3
