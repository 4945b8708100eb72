"""What an ideal camera at the agent's center would see, from the cameras' depth or a LiDAR sweep (numpy)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import camera_numbers, unit_rays

PLANARITY = 0.02
"""Largest second difference of inverse depth, relative to inverse depth, between neighbors on one surface."""

Planes = Float32[np.ndarray, "3 n"]


def central_ranges(camera: PanoramaCamera, points: Planes) -> Float32[np.ndarray, "hp wp"]:
    """Range of the nearest point in each pixel; 0 = none.

    Args:
        camera: the panorama.
        points: in the view's frame, coordinates along the first axis.
    """
    column, row, inside = camera.columns_and_rows(points)
    pixel = row[inside].astype(np.intp) * camera.width + column[inside].astype(np.intp)
    x, y, z = points[:, inside]
    nearest = np.full(camera.height * camera.width, np.inf, np.float32)
    np.minimum.at(nearest, pixel, np.sqrt(x * x + y * y + z * z))
    nearest[np.isinf(nearest)] = 0
    return nearest.reshape(camera.height, camera.width)


def central_geometry(
    camera: PanoramaCamera, rig: Rig, depths: Float32[np.ndarray, "k h w"], dense: bool
) -> Float32[np.ndarray, "hp wp"]:
    """Range along the nominal rays that an ideal camera at the agent's center would see; 0 = unknown.

    The points of all cameras are splatted with a z-buffer. A splatted point lies off the pixel's center; with dense
    depth its range is carried to the center along the local tangent plane, and points at depth edges, which have none,
    are dropped. Sparse depth keeps the point's own range.
    """
    return _carried(camera, rig, depths) if dense else central_ranges(camera, _points(rig, depths))


def _points(rig: Rig, depths: Float32[np.ndarray, "k h w"]) -> Planes:
    """What all pixels with depth show, agent frame."""
    found = []
    for depth, intrinsics, pose in zip(depths, rig.intrinsics, rig.agent_from_camera.astype(np.float32), strict=True):
        pixel = np.flatnonzero(depth)
        points = unit_rays(pixel, intrinsics, depth.shape[1]) * depth.reshape(-1)[pixel]
        found.append(pose[:3, :3] @ points + pose[:3, 3:])
    return np.concatenate(found, axis=1)


def _carried(camera: PanoramaCamera, rig: Rig, depths: Float32[np.ndarray, "k h w"]) -> Float32[np.ndarray, "hp wp"]:
    """:func:`central_geometry` of dense depth.

    Raises:
        ValueError: if images are too large for the numbers that pixels get.
    """
    from coopmap.geometry.kernels.splatting import EMPTY, LARGEST_SIDE, carry_to_centers, splat_planes

    height, width = depths.shape[1:]
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"expected images of at most {LARGEST_SIDE} pixels a side, got {height} x {width}")
    intrinsics, poses = camera_numbers(rig)
    nearest = np.full((camera.height, camera.width), EMPTY)
    splat_planes(depths, intrinsics, poses, np.float32(PLANARITY), _panorama_numbers(camera), nearest)
    ranges = np.empty(nearest.shape, np.float32)
    carry_to_centers(nearest, depths, intrinsics, poses, *_directions(camera), ranges)
    return ranges


def _panorama_numbers(camera: PanoramaCamera) -> tuple[int, int, np.float32, np.float32, np.float32, bool]:
    """See :func:`~coopmap.geometry.kernels.splatting.splat_planes`."""
    top, bottom = camera.row_range()
    rows_per_unit = camera.height / (top - bottom)
    numbers = np.array([camera.pixels_per_radian, rows_per_unit, top * rows_per_unit], np.float32)
    return camera.height, camera.width, *numbers, camera.projection == "cylinder"


@lru_cache(maxsize=2)
def _directions(camera: PanoramaCamera) -> tuple[Float32[np.ndarray, "2 wp"], Float32[np.ndarray, "2 hp"]]:
    """Sine and cosine of each column's azimuth, horizontal and downward part of each row's unit rays."""
    rays = camera_rays(camera)
    level = np.hypot(rays[:, 0, 0], rays[:, 0, 2])
    columns, rows = rays[0][:, [0, 2]].T / level[0], np.stack([level, rays[:, 0, 1]])
    return np.ascontiguousarray(columns, np.float32), rows.astype(np.float32)
