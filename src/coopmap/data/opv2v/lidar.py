"""LiDAR sweeps as sparse depth: projected into the cameras, without what the cameras cannot see."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert
from coopmap.geometry.targets import SeenPoints, nearest_per_pixel

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


def see(points: Float32[np.ndarray, "n 3"], rig: Rig) -> SeenPoints:
    """The points that cameras have in their images, of those in one pixel the nearest.

    Args:
        points: agent frame.
        rig: the agent's cameras.
    """
    height, width = rig.image_size
    camera_from_agent = invert(rig.agent_from_camera).astype(np.float32)
    x, y, z = np.ascontiguousarray(points.T)
    index, pixels, ranges = [], [], []
    for pose, ((fx, _, cx), (_, fy, cy), _) in zip(camera_from_agent, rig.intrinsics.astype(np.float32), strict=True):
        right, down, forward = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in pose[:3])
        front = np.flatnonzero(forward > _NEAR)
        right, down, forward = right[front], down[front], forward[front]
        u, v = right / forward * fx + cx, down / forward * fy + cy
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixel = v[inside].astype(np.int32) * width + u[inside].astype(np.int32)
        distance = np.sqrt(right[inside] ** 2 + down[inside] ** 2 + forward[inside] ** 2)
        nearest = nearest_per_pixel(pixel, distance, height * width)
        index.append(front[inside][nearest])
        pixels.append(pixel[nearest])
        ranges.append(distance[nearest])
    return SeenPoints(
        points=points[np.concatenate(index)],
        camera=np.repeat(np.arange(len(index), dtype=np.int8), [len(part) for part in index]),
        pixel=np.concatenate(pixels),
        ranges=np.concatenate(ranges),
        image_size=rig.image_size,
        num_cameras=len(index),
    )


def cull_hidden(seen: SeenPoints, focal_px: Float[np.ndarray, " k"], spacing_rad: float) -> SeenPoints:
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
        seen: points in camera pixels.
        focal_px: focal length of each camera.
        spacing_rad: angle between neighboring LiDAR samples.
    """
    hidden = np.zeros(len(seen.points), bool)
    for camera, focal in enumerate(focal_px):
        here = np.flatnonzero(seen.camera == camera)
        hidden[here] = _is_hidden(seen.pixel[here], seen.ranges[here], seen.image_size, float(focal), spacing_rad)
    return seen[~hidden]


def _is_hidden(
    pixel: Int[np.ndarray, " n"],
    ranges: Float32[np.ndarray, " n"],
    size: tuple[int, int],
    focal_px: float,
    spacing_rad: float,
) -> Bool[np.ndarray, " n"]:
    """:func:`cull_hidden` for one camera."""
    cell = max(1, round(focal_px * spacing_rad))
    rows, columns = -(-size[0] // cell), -(-size[1] // cell)
    place = pixel // size[1] // cell * columns + pixel % size[1] // cell
    grid = np.full(rows * columns, np.inf, np.float32)
    np.minimum.at(grid, place, ranges)
    num_nearer = np.zeros(len(pixel), dtype=np.int8)
    clearly_nearer = (ranges - _NEARER_ABSOLUTE_M) / (1 + _NEARER_RELATIVE)
    for kernel in _sector_kernels(max(2, round(_RADIUS_SAMPLES * focal_px * spacing_rad / cell))):
        num_nearer += cv2.erode(grid.reshape(rows, columns), kernel).reshape(-1)[place] < clearly_nearer
    return num_nearer >= _SECTORS_ENCLOSING


@lru_cache(maxsize=8)
def _sector_kernels(radius: int) -> list[np.ndarray]:
    """Masks of the offsets in each 45-degree sector of a disc, its center left out."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    sector = np.rint(np.arctan2(y, x) / (2 * np.pi / _SECTORS)).astype(int) % _SECTORS
    in_disc = (x * x + y * y > 0) & (x * x + y * y <= (radius + 0.5) ** 2)
    return [(in_disc & (sector == index)).astype(np.uint8) for index in range(_SECTORS)]
