"""From a rig's four pinhole images to one panorama at the agent's center.

A ray of the panorama is cut by a proxy surface, and the cut point is projected into every camera with its full
extrinsics; of the cameras that see it the one closest to its optical axis wins. The map depends on calibration alone
(:class:`PanoramaWarp`); :mod:`coopmap.geometry.warp_cache` keeps one per distinct rig.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert, rotate


@dataclass(frozen=True)
class PanoramaSpec:
    """Everything but the rig that decides a warp.

    Attributes:
        camera: the ideal panorama camera.
        surface: ``bowl``, ``sphere`` or ``infinite``.
        radius_m: radius of the sphere, or of the sphere that closes the bowl.
        feather: width of the color blend between two cameras, radians.
        legacy_crop: keep only the rows of each image that a crop to the panorama's aspect ratio keeps.
    """

    camera: PanoramaCamera
    surface: str = "bowl"
    radius_m: float = 30.0
    feather: float = np.deg2rad(3.0)
    legacy_crop: bool = False


class PanoramaWarp(NamedTuple):
    """Where each panorama pixel looks; -1 where no camera does.

    Cameras are counted in slot order; their pixels in row-major order.

    Attributes:
        winner: camera that shows the pixel.
        source: nearest pixel in the winner.
        pixel: continuous pixel ``(u, v)`` in the winner.
        blend_at: flat panorama indices at which a second camera is blended in.
        blend_camera: that camera.
        blend_pixel: continuous pixel ``(u, v)`` in it.
        blend_weight: its weight, below one half.
    """

    winner: Int[np.ndarray, "h w"]
    source: Int[np.ndarray, "h w"]
    pixel: Float32[np.ndarray, "h w 2"]
    blend_at: Int[np.ndarray, " n"]
    blend_camera: Int[np.ndarray, " n"]
    blend_pixel: Float32[np.ndarray, "n 2"]
    blend_weight: Float32[np.ndarray, " n"]

    @property
    def covered(self) -> Bool[np.ndarray, "h w"]:
        """Pixels that some camera sees."""
        return self.winner >= 0


def surface_range(
    rays: Float[np.ndarray, "*b 3"], surface: str, radius_m: float, ground_height_m: float
) -> Float[np.ndarray, "*b"]:
    """Range at which unit rays from the agent's origin meet the proxy surface; infinity for ``infinite``.

    The bowl is the plane ``ground_height_m`` below the origin, closed by a sphere of ``radius_m`` around it.

    Raises:
        ValueError: if the surface is unknown, or a bowl's ground is not below the origin.
    """
    if surface == "infinite":
        return np.full(rays.shape[:-1], np.inf, rays.dtype)
    if surface == "sphere":
        return np.full(rays.shape[:-1], radius_m, rays.dtype)
    if surface != "bowl":
        raise ValueError(f"unknown surface {surface!r}: expected bowl, sphere or infinite")
    if ground_height_m <= 0:
        raise ValueError(f"a bowl needs the agent's origin above the ground, got a height of {ground_height_m} m")
    reach = np.maximum(rays[..., 1], LEAST_SLOPE)  # upward the ground lies beyond the sphere
    np.divide(ground_height_m, reach, out=reach)
    return np.minimum(reach, radius_m, out=reach)


LEAST_SLOPE = 1e-30


def surface_range_from(
    origin: Float[np.ndarray, "*b 3"],
    rays: Float[np.ndarray, "*b 3"],
    surface: str,
    radius_m: float,
    ground_height_m: float,
) -> Float[np.ndarray, "*b"]:
    """Range at which unit rays from places inside the proxy surface meet it; see :func:`surface_range`."""
    if surface == "infinite":
        return np.full(rays.shape[:-1], np.inf, rays.dtype)
    # coordinate by coordinate: numpy is slow on short axes
    along = sum(origin[..., axis] * rays[..., axis] for axis in range(3))
    to_sphere = np.sqrt(along * along - sum(origin[..., axis] ** 2 for axis in range(3)) + radius_m**2) - along
    if surface == "sphere":
        return to_sphere
    with np.errstate(divide="ignore"):
        to_ground = np.where(rays[..., 1] > 0, (ground_height_m - origin[..., 1]) / rays[..., 1], np.inf)
    return np.minimum(to_ground, to_sphere)


def build_warp(rig: Rig, spec: PanoramaSpec, rays: Float[np.ndarray, "h w 3"] | None = None) -> PanoramaWarp:
    """Compute the map from panorama to cameras.

    Args:
        rig: the cameras.
        spec: the panorama.
        rays: unit directions of its pixels in the agent frame, if they are not those of ``spec.camera``: a panorama
            in a tilted frame. Computed in their precision.
    """
    rays = camera_rays(spec.camera) if rays is None else rays
    directions = np.empty((3, *rays.shape[:2]), rays.dtype)
    cv2.split(rays, list(directions))
    reach = surface_range(np.moveaxis(directions, 0, -1), spec.surface, spec.radius_m, rig.ground_height_m)
    race = _Race.start(reach.shape, reach.dtype)
    for slot in range(len(rig.intrinsics)):
        for part in _columns_in_sight(rig, slot, spec, directions, reach):
            race.enter(part, slot, *_seen_by(rig, slot, spec, directions[..., part], reach[..., part]))
    source = race.v.astype(np.int32)
    source *= rig.image_size[1]
    source += race.u.astype(np.int32)
    np.copyto(source, -1, where=race.winner < 0)

    contested = np.flatnonzero(race.second >= 0)
    second = race.second.take(contested)
    behind, ahead = (np.sqrt(slope.take(contested)) for slope in (race.second_slope, race.slope))
    nearly = float(np.tan(min(1.01 * spec.feather, np.pi / 2)))  # tangents of few: arctan is slow
    close = np.flatnonzero(behind - ahead < nearly * (1 + behind * ahead))
    lead = np.arctan(behind[close]) - np.arctan(ahead[close])
    blend = np.flatnonzero(lead < spec.feather)
    blend_at, blend_camera = contested[close[blend]], second[close[blend]]
    blend_pixel = np.zeros((len(blend), 2), np.float32)
    for slot in range(len(rig.intrinsics)):
        here = np.flatnonzero(blend_camera == slot)
        at = blend_at[here]
        u, v, *_ = _seen_by(rig, slot, spec, directions.reshape(3, -1)[:, at], reach.reshape(-1)[at])
        blend_pixel[here] = np.stack([u, v], axis=-1)
    weight = 0.5 * (1 - lead[blend] / spec.feather) if spec.feather > 0 else np.zeros(len(blend))
    return PanoramaWarp(
        winner=race.winner,
        source=source,
        pixel=cv2.merge([each.astype(np.float32, copy=False) for each in (race.u, race.v)]),
        blend_at=blend_at.astype(np.int32),
        blend_camera=blend_camera,
        blend_pixel=blend_pixel,
        blend_weight=weight.astype(np.float32),
    )


class _Race(NamedTuple):
    """Which camera sees each pixel closest to its optical axis (smallest slope), where, and which comes second."""

    winner: Int[np.ndarray, "h w"]
    slope: Float[np.ndarray, "h w"]
    u: Float[np.ndarray, "h w"]
    v: Float[np.ndarray, "h w"]
    second: Int[np.ndarray, "h w"]
    second_slope: Float[np.ndarray, "h w"]

    @classmethod
    def start(cls, shape: tuple[int, ...], dtype: np.dtype) -> _Race:
        nobody, nowhere, unseen = np.full(shape, -1, np.int8), np.full(shape, -1, dtype), np.full(shape, np.inf, dtype)
        return cls(nobody, unseen, nowhere, nowhere.copy(), nobody.copy(), unseen.copy())

    def enter(self, part: slice, slot: int, u: np.ndarray, v: np.ndarray, slope: np.ndarray) -> None:
        """Let a camera compete for some columns."""
        winner, best, best_u, best_v, second, next_best = (field[:, part] for field in self)
        wins = slope < best
        follows = slope < next_best
        follows &= ~wins
        np.copyto(second, winner, where=wins)
        np.copyto(next_best, best, where=wins)
        np.copyto(second, slot, where=follows)
        np.copyto(next_best, slope, where=follows)
        np.copyto(winner, slot, where=wins)
        for field, values in ((best, slope), (best_u, u), (best_v, v)):
            np.copyto(field, values, where=wins)


def _seen_by(
    rig: Rig, slot: int, spec: PanoramaSpec, directions: Float[np.ndarray, "3 *b"], reach: Float[np.ndarray, "*b"]
) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b"], Float[np.ndarray, "*b"]]:
    """Pixel ``u, v`` in a camera of what lies in some directions, and the slope of that against the optical axis.

    The slope is the squared tangent of the angle: what is nearest to the axis has the smallest. It is infinite where
    the camera does not see it.
    """
    dtype, (height, width) = directions.dtype, rig.image_size
    pose = invert(rig.agent_from_camera[slot]).astype(dtype)
    (fx, _, cx), (_, fy, cy), _ = rig.intrinsics[slot].astype(dtype)
    points = (pose[:3, :3] @ directions.reshape(3, -1)).reshape(directions.shape)
    if spec.surface != "infinite":
        points *= reach
        points += pose[:3, 3].reshape(3, *[1] * reach.ndim)
    u, v, z = points
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u /= z
        v /= z
        slope = u * u
        slope += v * v
        u *= fx
        u += cx
        v *= fy
        v += cy
        seen = z > 0
        for bounded in (u >= 0, u < width, v >= 0, v < height):
            seen &= bounded
        if spec.legacy_crop:
            kept_rows = min(height, width * spec.camera.height / spec.camera.width)
            seen &= np.abs(v - height / 2) <= kept_rows / 2
    np.copyto(slope, np.inf, where=~seen)
    return u, v, slope


COARSE_ROWS, COARSE_COLUMNS = 4, 8
"""Every so many pixels it is tested whether a camera sees them."""


def _columns_in_sight(
    rig: Rig, slot: int, spec: PanoramaSpec, directions: Float[np.ndarray, "3 h w"], reach: Float[np.ndarray, "h w"]
) -> list[slice]:
    """Columns that a camera may see, as one stretch or, across the panorama's seam, two."""
    coarse = slice(None, None, COARSE_ROWS), slice(None, None, COARSE_COLUMNS)
    *_, slope = _seen_by(rig, slot, spec, directions[:, *coarse], reach[coarse])
    seen = np.isfinite(slope).any(axis=0)
    near = seen | np.roll(seen, 1) | np.roll(seen, -1) | np.roll(seen, 2) | np.roll(seen, -2)
    edges = np.flatnonzero(np.diff(near, prepend=False, append=False)) * COARSE_COLUMNS
    return [slice(first, last) for first, last in edges.reshape(-1, 2).tolist()]


def look_up(
    rig: Rig, rays: Float[np.ndarray, "h w 3"], spec: PanoramaSpec
) -> tuple[Float[np.ndarray, "k h w 2"], Float[np.ndarray, "k h w"]]:
    """Where every camera sees what lies in given directions from the agent's center.

    Args:
        rig: the cameras.
        rays: unit directions in the agent frame; their precision is that of the computation.
        spec: the proxy surface that they are cut by.

    Returns:
        Per camera the pixel ``(u, v)`` of each ray's cut point (NaN behind the camera), and the angle between the cut
        point and the optical axis in radians, infinity where the camera does not see it.
    """
    reach = surface_range(rays, spec.surface, spec.radius_m, rig.ground_height_m)
    height, width = rig.image_size
    pixels, angles = [], []
    for intrinsics, agent_from_camera in zip(rig.intrinsics, rig.agent_from_camera, strict=True):
        camera_from_agent = invert(agent_from_camera).astype(rays.dtype)
        points = rotate(camera_from_agent, rays)
        if spec.surface != "infinite":
            for axis, offset in enumerate(camera_from_agent[:3, 3]):
                points[..., axis] = points[..., axis] * reach + offset
        pixel, seen = PinholeCamera(intrinsics.astype(rays.dtype), height, width).project(points)
        if spec.legacy_crop:
            kept_rows = min(height, width * spec.camera.height / spec.camera.width)
            with np.errstate(invalid="ignore"):
                seen &= np.abs(pixel[..., 1] - height / 2) <= kept_rows / 2
        pixels.append(pixel)
        x, y, z = points[seen].T
        angle = np.full(seen.shape, np.inf, rays.dtype)
        angle[seen] = np.arctan2(np.hypot(x, y), z)
        angles.append(angle)
    return np.stack(pixels), np.stack(angles)
