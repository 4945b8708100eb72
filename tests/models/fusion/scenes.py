"""A car with four cameras, and what a model sees of it in the grouped and in the warped layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from coopmap.config.fusion import FUSION_LAYOUTS
from coopmap.config.model import ModelConfig
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.panorama import PanoramaSpec, look_up
from coopmap.geometry.poses import rotation_about_y
from coopmap.geometry.rig import Rig
from coopmap.models import MapAnything
from coopmap.types import Observation

from ..support import load_config

PATCH = 14
PANORAMA = (42, 168)
CAMERA = (42, 56)
AZIMUTHS_DEG = (0.0, -100.0, 180.0, 100.0)
"""Of the cameras front, left, rear, right."""
POSITIONS_M = ((0.1, 0.4, 2.0), (-0.9, 0.4, 0.8), (0.0, 0.5, -2.2), (0.9, 0.4, 0.8))
KINDS = tuple(kind for kind in FUSION_LAYOUTS if kind != "none")
VARIANTS = (
    *({"kind": kind} for kind in KINDS),
    {"kind": "mean", "shared_blocks": 1},
    {"kind": "cross_attention", "shared_blocks": 1, "radius": 1},
)


def make_rig(size: tuple[int, int]) -> Rig:
    """Cameras of 100 degrees, up to 2.2 m off the car's origin, 1.9 m above the ground."""
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(50))
    poses = np.stack([rotation_about_y(np.deg2rad(azimuth)) for azimuth in AZIMUTHS_DEG])
    poses[:, :3, 3] = POSITIONS_M
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Rig(np.repeat(intrinsics[None], 4, axis=0), poses, size, ground_height_m=1.9)


def panorama_spec(size: tuple[int, int]) -> PanoramaSpec:
    return PanoramaSpec(PanoramaCamera(*size, v_fov=np.pi / 2))


def observe(layout: str, panorama: tuple[int, int] = PANORAMA, camera: tuple[int, int] = CAMERA) -> Observation:
    """One car, images yet to be filled in: where its cameras see what."""
    rig, spec = make_rig(camera), panorama_spec(panorama)
    rays, images = camera_rays(spec.camera), torch.zeros(1, 1, 4, 3, *panorama)
    grid = None
    if layout == "warped":
        _, angle = look_up(rig, rays, spec)
    else:
        patches = dataclasses.replace(spec.camera, height=panorama[0] // PATCH, width=panorama[1] // PATCH)
        pixel, angle = look_up(rig, camera_rays(patches), spec)
        grid = np.where(np.isfinite(angle)[..., None], 2 * pixel / np.array([camera[1], camera[0]]) - 1, np.nan)
        images = torch.zeros(1, 1, 4, 3, *camera)
    return Observation(
        images=images,
        rays=torch.from_numpy(rays).float()[None, None],
        camera_angle=torch.from_numpy(angle).float()[None, None],
        camera_grid=None if grid is None else torch.from_numpy(grid).float()[None, None],
        camera_pose=torch.from_numpy(rig.agent_from_camera).float()[None, None],
    )


def random_observation(kind: str, batch: int = 1, views: int = 2) -> Observation:
    """Noise in every camera."""
    observation = observe(FUSION_LAYOUTS[kind][0])
    observation = observation.map(lambda tensor: tensor.expand(batch, views, *tensor.shape[2:]).clone())
    images = torch.randn(observation.images.shape, generator=torch.Generator().manual_seed(0))
    if observation.camera_grid is None:
        images = images * observation.camera_angle.isfinite()[:, :, :, None]
    return dataclasses.replace(observation, images=images)


def without_camera(observation: Observation, slot: int) -> Observation:
    """The same cars with one camera out of order."""
    angle = observation.camera_angle.clone()
    angle[:, :, slot] = torch.inf
    return dataclasses.replace(observation, camera_angle=angle)


def permuted(observation: Observation, order: list[int]) -> Observation:
    """Cameras and all that belongs to them, in another order."""
    names = ("images", "camera_angle", "camera_grid", "camera_pose")
    changes = {name: value[:, :, order] for name in names if (value := getattr(observation, name)) is not None}
    return dataclasses.replace(observation, **changes)


def make_config(fusion: dict, **changes: object) -> ModelConfig:
    small = {"encoder": {"dim": 48, "num_heads": 3}, "info_sharing": {"dim": 48, "num_heads": 3}}
    return load_config("mapanything_tiny", small, {"fusion": {"dim": 8, "num_heads": 2} | fusion}, changes)


def make_model(fusion: dict, **changes: object) -> MapAnything:
    """Same weights for every kind of fusion, but for the block itself."""
    torch.manual_seed(0)
    return MapAnything(make_config(fusion, **changes))


@torch.no_grad()
def unsettled(model: MapAnything) -> MapAnything:
    """The model after what training does to zero-initialized weights."""
    for parameter in model.fusion.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    nn.init.normal_(model.encoder.model.patch_embed.proj.bias)
    return model
