"""LiDAR sweeps as sparse depth: read, project into the cameras, drop what the cameras cannot see."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32
from pypcd4 import PointCloud

from coopmap.data.opv2v.errors import CorruptFrameError, MissingFileError
from coopmap.geometry.carla import points_cv_from_ue
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert, transform_points

# OPV2V's agent cars, right and forward; the LiDAR sits half a meter behind the middle of the car.
_BODY_HALF_SIZE = (1.1, 2.5)
_BODY_CENTER_FORWARD = 0.5

_NEAR = 0.1

# Culling: see cull_hidden. The radius is in LiDAR samples; on near objects, whose samples the cameras see further apart
# than the LiDAR does, it still spans two or three.
_SECTORS = 8
_SECTORS_ENCLOSING = 6
_RADIUS_SAMPLES = 5
_NEARER_RELATIVE = 0.05
_NEARER_ABSOLUTE_M = 0.3


def read_sweep(path: Path) -> Float32[np.ndarray, "n 3"]:
    """Points of a ``.pcd`` file (ASCII or binary) in the agent frame, OpenCV axes.

    pypcd4 parses ASCII with numpy's C reader: 14 ms for 50,000 points.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it cannot be parsed or holds fewer points than it announces.
    """
    remedy = "Copy or unpack the file again"
    try:
        cloud = PointCloud.from_path(path)
        points = cloud.numpy(("x", "y", "z"))
    except FileNotFoundError:
        raise MissingFileError(path, "no such file", "Unpack the missing part of the dataset") from None
    except Exception as error:  # pypcd4 lets whatever its parsers meet pass through
        raise CorruptFrameError(path, f"not a readable PCD file, perhaps cut off ({error})"[:300], remedy) from error
    if len(points) != cloud.metadata.points:
        raise CorruptFrameError(
            path, f"truncated: {len(points)} of the {cloud.metadata.points} points announced in the header", remedy
        )
    points = points[np.isfinite(points).all(axis=1)]
    return points_cv_from_ue(points).astype(np.float32, copy=False)


def sample_spacing(points: Float[np.ndarray, "n 3"]) -> float:
    """Typical angle between neighboring points of a sweep as its own sensor sees them, radians.

    The square root of the solid angle that a point has to itself in the band of elevations that the sensor scans.
    """
    if len(points) < 2:
        return math.pi
    sine = points[:, 1] / np.maximum(np.linalg.norm(points, axis=1), 1e-6)
    low, high = np.quantile(sine, (0.01, 0.99))
    return math.sqrt(2 * math.pi * max(float(high - low), 1e-6) / len(points))


def drop_own_body(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Drop points on the agent's own car, below its LiDAR: they show the inside of what carries the cameras."""
    right, down, forward = points.T
    on_body = (np.abs(right) < _BODY_HALF_SIZE[0]) & (np.abs(forward - _BODY_CENTER_FORWARD) < _BODY_HALF_SIZE[1])
    return points[~(on_body & (down > 0))]


def splat(points: Float[np.ndarray, "n 3"], rig: Rig) -> Float32[np.ndarray, "k h w"]:
    """Range of the nearest point in each pixel of each camera, 0 where there is none.

    Args:
        points: agent frame.
        rig: the agent's cameras.
    """
    num_cameras, (height, width) = len(rig.intrinsics), rig.image_size
    seen = transform_points(invert(rig.agent_from_camera).astype(np.float32), points)
    camera, index = np.nonzero(seen[..., 2] > _NEAR)
    seen = seen[camera, index]
    pixel = seen[:, :2] / seen[:, 2:] * rig.intrinsics[:, [0, 1], [0, 1]][camera] + rig.intrinsics[:, :2, 2][camera]
    inside = ((pixel >= 0) & (pixel < (width, height))).all(axis=1)
    column, row = pixel[inside].astype(np.intp).T
    nearest = np.full((num_cameras, height, width), np.inf, dtype=np.float32)
    flat = (camera[inside] * height + row) * width + column
    np.minimum.at(nearest.reshape(-1), flat, np.linalg.norm(seen[inside], axis=1).astype(np.float32))
    nearest[np.isinf(nearest)] = 0
    return nearest


def cull_hidden(
    depth: Float32[np.ndarray, "k h w"], focal_px: float, spacing_rad: float
) -> Float32[np.ndarray, "k h w"]:
    """Drop points that the LiDAR sees over or past a nearer surface which hides them from the camera.

    A sparse surface does not fill the z-buffer, so points behind it show through its gaps. Such a point is *enclosed*:
    in most directions around it in the image there are clearly nearer points close by. A visible point is not, even on
    a road at grazing angle, where everything below is nearer, or beside the outline of a car, where one side is. So a
    point goes if clearly nearer points lie in at least 6 of the 8 sectors around it.

    In a ray-cast street (64 beams, real rig, parked cars, poles) this leaves 0.4 % of the points on hidden surfaces
    instead of 5 %, at the price of 1.5 % of the visible points, none of them on an open road. Comparing with the
    nearest point of a window, the usual choice, costs twice as many at the same error. With merged sweeps: 0.5 % hidden
    instead of 21 %, for 6 % of the visible points.

    Neighbors are looked for on a grid whose cells are about one LiDAR sample wide.

    Args:
        depth: sparse range, 0 = none.
        focal_px: focal length of the cameras.
        spacing_rad: angle between neighboring LiDAR samples.
    """
    cell = max(1, round(focal_px * spacing_rad))
    num_cameras, height, width = depth.shape
    rows, columns = -(-height // cell), -(-width // cell)
    at = np.flatnonzero(depth)
    camera, row, column = np.unravel_index(at, depth.shape)
    place = (camera, row // cell, column // cell)
    ranges = depth.reshape(-1)[at]
    grid = np.full((num_cameras, rows, columns), np.inf, dtype=np.float32)
    np.minimum.at(grid, place, ranges)
    num_nearer = np.zeros(len(at), dtype=np.int8)
    clearly_nearer = (ranges - _NEARER_ABSOLUTE_M) / (1 + _NEARER_RELATIVE)
    for kernel in _sector_kernels(max(2, round(_RADIUS_SAMPLES * focal_px * spacing_rad / cell))):
        nearest = np.stack([cv2.erode(image, kernel) for image in grid])
        num_nearer += nearest[place] < clearly_nearer
    culled = depth.copy()
    culled.reshape(-1)[at[num_nearer >= _SECTORS_ENCLOSING]] = 0
    return culled


def _sector_kernels(radius: int) -> list[np.ndarray]:
    """Masks of the offsets in each 45-degree sector of a disc, its center left out."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    sector = np.rint(np.arctan2(y, x) / (2 * np.pi / _SECTORS)).astype(int) % _SECTORS
    in_disc = (x * x + y * y > 0) & (x * x + y * y <= (radius + 0.5) ** 2)
    return [(in_disc & (sector == index)).astype(np.uint8) for index in range(_SECTORS)]
