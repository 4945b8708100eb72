"""From a rig's four pinhole images to one panorama at the agent's center.

A ray of the panorama is cut by a proxy surface, and the cut point is projected into every camera with its full
extrinsics; of the cameras that see it the one closest to its optical axis wins. The map depends on calibration alone
(:class:`PanoramaWarp`); :mod:`coopmap.geometry.warp_cache` keeps one per distinct rig.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
    _check_surface(surface, ground_height_m)
    if surface != "bowl":
        return np.full(rays.shape[:-1], np.inf if surface == "infinite" else radius_m, rays.dtype)
    reach = np.maximum(rays[..., 1], LEAST_SLOPE)  # upward the ground lies beyond the sphere
    np.divide(ground_height_m, reach, out=reach)
    return np.minimum(reach, radius_m, out=reach)


LEAST_SLOPE = 1e-30


def _check_surface(surface: str, ground_height_m: float) -> None:
    if surface not in ("bowl", "sphere", "infinite"):
        raise ValueError(f"unknown surface {surface!r}: expected bowl, sphere or infinite")
    if surface == "bowl" and ground_height_m <= 0:
        raise ValueError(f"a bowl needs the agent's origin above the ground, got a height of {ground_height_m} m")


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
    from coopmap.geometry.kernels.race import find_winners

    rays = np.ascontiguousarray(camera_rays(spec.camera) if rays is None else rays)
    _check_surface(spec.surface, rig.ground_height_m)
    num_pixels, (height, width) = rays.shape[0] * rays.shape[1], rays.shape[:2]
    to_cameras = invert(rig.agent_from_camera)[:, :3]
    if spec.surface == "infinite":
        to_cameras[:, :, 3] = 0
    warp = PanoramaWarp(
        winner=np.empty((height, width), np.int8),
        source=np.empty((height, width), np.int32),
        pixel=np.empty((height, width, 2), np.float32),
        blend_at=np.empty(num_pixels, np.int32),
        blend_camera=np.empty(num_pixels, np.int8),
        blend_pixel=np.empty((num_pixels, 2), np.float32),
        blend_weight=np.empty(num_pixels, np.float32),
    )
    count = find_winners(
        rays.reshape(height, -1),
        _numbers(rig, spec).astype(rays.dtype),
        spec.feather,
        pinhole_numbers(rig.intrinsics).astype(rays.dtype),
        np.ascontiguousarray(to_cameras, rays.dtype),
        *warp._replace(pixel=warp.pixel.reshape(height, -1)),
    )
    names = ("blend_at", "blend_camera", "blend_pixel", "blend_weight")
    return warp._replace(**{name: getattr(warp, name)[:count].copy() for name in names})


def _numbers(rig: Rig, spec: PanoramaSpec) -> Float[np.ndarray, " n"]:
    """See :func:`coopmap.geometry.kernels.race.find_winners`."""
    height, width = rig.image_size
    kept_rows = min(height, width * spec.camera.height / spec.camera.width) if spec.legacy_crop else 2 * height
    radius = 1.0 if spec.surface == "infinite" else spec.radius_m
    ground = rig.ground_height_m if spec.surface == "bowl" else np.inf
    return np.array([radius, ground, width, height, kept_rows / 2, 0, 1, np.inf, LEAST_SLOPE])


def pinhole_numbers(intrinsics: Float[np.ndarray, "k 3 3"]) -> Float[np.ndarray, "k 4"]:
    """Focal lengths and principal points: what kernels know of pinhole cameras."""
    return np.concatenate([intrinsics[:, [0, 1], [0, 1]], intrinsics[:, :2, 2]], axis=1)


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
