"""From a sample of any layout to the views that a preview shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, UInt8
from torch import Tensor

from coopmap.config.data import DataConfig
from coopmap.data.augmentation import roll_columns, rotated
from coopmap.data.normalization import pictures_of
from coopmap.data.views import panorama_spec
from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.geometry.panorama import build_warp
from coopmap.geometry.poses import heading_deg
from coopmap.geometry.rig import SLOTS, SLOTS_BY_AZIMUTH, Rig
from coopmap.geometry.warp_cache import rounded_rig
from coopmap.previews.frame import PreviewFrame
from coopmap.viz.panels import ShownView

ON_PANORAMA = ("panorama", "grouped", "warped")
"""Layouts whose targets lie on a panorama."""


def shown_views(frame: PreviewFrame, config: DataConfig) -> list[ShownView]:
    """All views of a sample, those of an agent together; of fused cameras the single images as well."""
    views = []
    for number in range(len(frame.sample.meta.agents)):
        views.append(_target_view(frame, number, config))
        if frame.sample.observation.images.ndim == 5:
            views += _camera_images(frame, number, config)
    return views


def _target_view(frame: PreviewFrame, number: int, config: DataConfig) -> ShownView:
    """A view with its ground truth."""
    target, observation = frame.sample.target, frame.sample.observation
    agent = number // frame.views_per_agent
    covered = target.non_ambiguous[number].numpy()
    shares = _camera_shares(frame, number, config)
    images = pictures_of(observation.images[number])
    is_single = observation.images.ndim == 4
    rays = target.rays[number].numpy()
    if target.rig_pose is not None:
        rays = rotated(rays, target.rig_pose[number].numpy())
    return ShownView(
        agent=agent,
        name=SLOTS[number % frame.views_per_agent] if config.layout == "cameras" else "",
        directions=rays,
        image=images if is_single else _composed(images, shares),
        depth=target.depth[number].numpy(),
        covered=covered,
        moving=_of_view(target.moving, number),
        own_body=_of_view(target.own_body, number),
        camera=None if shares is None else np.where(covered, shares.camera, -1).astype(np.int8),
        blended=None if shares is None or not is_single else shares.blended & covered,
    )


@dataclass(frozen=True, eq=False)
class CameraShares:
    """Which camera shows each pixel (-1: none), and where a second one is mixed in."""

    camera: Int8[np.ndarray, "h w"]
    blended: Bool[np.ndarray, "h w"]


def _camera_shares(frame: PreviewFrame, number: int, config: DataConfig) -> CameraShares | None:
    """From calibration and the way that the view is turned against its agent; ``None`` = not known for the layout."""
    agent = number // frame.views_per_agent
    if config.layout == "cameras":
        size = frame.sample.target.depth.shape[-2:]
        return CameraShares(np.full(size, number % frame.views_per_agent, np.int8), np.zeros(size, bool))
    if config.layout == "mosaic":
        camera = np.repeat(np.array(SLOTS_BY_AZIMUTH, np.int8), config.mosaic.width)
        camera = np.tile(camera, (config.mosaic.height, 1))
        return CameraShares(camera, np.zeros(camera.shape, bool))
    if config.layout not in ON_PANORAMA:
        return None
    spec = panorama_spec(config.panorama)
    agent_from_view = np.eye(4)
    agent_from_view[:3, :3] = frame.poses[agent, :3, :3].T @ frame.sample.target.pose[number, :3, :3].double().numpy()
    shift = _columns(agent_from_view, spec.camera.width)
    rig, rays = rounded_rig(frame.rigs[agent]), camera_rays(spec.camera)
    warp = build_warp(rig, spec, rays if shift is not None else rotated(rays, agent_from_view))
    blended = np.zeros(warp.winner.shape, bool)
    blended.flat[warp.blend_at] = True
    return CameraShares(roll_columns(warp.winner, shift or 0), roll_columns(blended, shift or 0))


def _columns(agent_from_view: Float[np.ndarray, "4 4"], width: int) -> int | None:
    """Columns by which an upright panorama was rolled; ``None`` of a tilted one."""
    if agent_from_view[1, 1] < 1 - 1e-6:
        return None
    return round(float(heading_deg(agent_from_view)) / 360 * width) % width


def _composed(images: UInt8[np.ndarray, "k h w 3"], shares: CameraShares | None) -> UInt8[np.ndarray, "h w 3"] | None:
    """The winning camera's pixels of images that lie on the panorama; there is no such picture of others."""
    if shares is None or shares.camera.shape != images.shape[1:3]:
        return None
    return np.take_along_axis(images, shares.camera.clip(0)[None, ..., None], axis=0)[0]


def _camera_images(frame: PreviewFrame, number: int, config: DataConfig) -> list[ShownView]:
    """The images that the model fuses, one by one, in the directions of the view."""
    observation = frame.sample.observation
    assert observation.camera_pose is not None
    assert observation.camera_angle is not None
    agent, views = number // frame.views_per_agent, []
    for slot, image in enumerate(pictures_of(observation.images[number])):
        seen = np.ones(image.shape[:2], bool)
        if config.layout == "warped":
            seen = observation.camera_angle[number, slot].isfinite().numpy()
            directions = observation.rays[number].numpy()
        else:
            rays = _pinhole_rays(frame.rigs[agent], slot, image.shape[:2])
            directions = rotated(rays, observation.camera_pose[number, slot].numpy())
        camera = np.where(seen, slot, -1).astype(np.int8)
        views.append(ShownView(agent, SLOTS[slot], directions, image, covered=seen, camera=camera))
    return views


def _pinhole_rays(rig: Rig, slot: int, size: tuple[int, ...]) -> Float32[np.ndarray, "h w 3"]:
    """Of the pixels of a resized camera image, in the camera's frame."""
    scale = np.array([size[1] / rig.image_size[1], size[0] / rig.image_size[0], 1.0])
    camera = PinholeCamera(scale[:, None] * rig.intrinsics[slot], size[0], size[1])
    return camera_rays(camera).astype(np.float32)


def _of_view(mask: Bool[Tensor, "v h w"] | None, number: int) -> Bool[np.ndarray, "h w"] | None:
    return None if mask is None else mask[number].numpy()
