"""What an ideal camera at the agent's center would see, from the cameras' depth or a LiDAR sweep (numpy)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import rows_and_columns, unit_rays

PLANARITY = 0.02
"""Largest second difference of inverse depth, relative to inverse depth, between neighbors on one surface."""

BLOCK = 1 << 16
"""Camera pixels that are splatted at once: their points fit into the processor's cache."""

Planes = Float32[np.ndarray, "3 n"]


def central_ranges(camera: PanoramaCamera, points: Planes) -> Float32[np.ndarray, "hp wp"]:
    """Range of the nearest point in each pixel; 0 = none.

    Args:
        camera: the panorama.
        points: in the view's frame, coordinates along the first axis.
    """
    buffer = _ZBuffer(camera)
    buffer.splat(points, np.arange(points.shape[1]))
    return buffer.ranges()


def central_geometry(
    camera: PanoramaCamera, rig: Rig, depths: Float32[np.ndarray, "k h w"], dense: bool
) -> Float32[np.ndarray, "hp wp"]:
    """Range along the nominal rays that an ideal camera at the agent's center would see; 0 = unknown.

    The points of all cameras are splatted with a z-buffer. A splatted point lies off the pixel's center; with dense
    depth its range is carried to the center along the local tangent plane, and points at depth edges, which have none,
    are dropped. Sparse depth keeps the point's own range.
    """
    buffer = _ZBuffer(camera)
    views = [_DepthImage.of(rig, slot, depth) for slot, depth in enumerate(depths)]
    size, ranges = depths[0].size, depths.reshape(len(depths), -1)
    for slot, view in enumerate(views):
        for part in (slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)):
            chosen = np.flatnonzero(view.on_planes(part) if dense else ranges[slot, part])
            chosen += part.start
            if len(chosen):
                points = view.rotation @ (view.rays.take(chosen, axis=1) * ranges[slot].take(chosen)) + view.offset
                buffer.splat(points, chosen + slot * size)
    if not dense:
        return buffer.ranges()
    hit, source, splatted = buffer.winners()
    found, owner = np.zeros(camera.height * camera.width, np.float32), source // size
    for slot, view in enumerate(views):
        here = np.flatnonzero(owner == slot)
        toward = _nominal_rays(camera).take(hit.take(here), axis=1)
        carried, near = view.carried(source.take(here) - slot * size, toward), splatted.take(here)
        with np.errstate(invalid="ignore"):
            found[hit.take(here)] = np.where(np.abs(carried - near) < 0.1 * near, carried, 0)
    return found.reshape(camera.height, camera.width)


class _ZBuffer:
    """The nearest point of each pixel: range and source in one number, whose order is that of ranges.

    The bits of positive floats are ordered as the floats are.
    """

    EMPTY = np.iinfo(np.int64).max

    def __init__(self, camera: PanoramaCamera) -> None:
        self.camera = camera
        self.nearest = np.full(camera.height * camera.width, self.EMPTY)

    def splat(self, points: Planes, number: Int[np.ndarray, " m"]) -> None:
        """Add some points, each with a number below 2 to the 32."""
        column, row, inside = self.camera.columns_and_rows(points)
        pixel = row.astype(np.int32)
        pixel *= np.int32(self.camera.width)
        pixel += column.astype(np.int32)
        key = np.sqrt(_dot(points, points)).view(np.int32).astype(np.int64)
        key <<= 32
        key += number
        if not inside.all():
            pixel, key = pixel[inside], key[inside]
        np.minimum.at(self.nearest, pixel, key)

    def winners(self) -> tuple[Int[np.ndarray, " h"], Int[np.ndarray, " h"], Float32[np.ndarray, " h"]]:
        """Pixels that are hit, by which source, and its range."""
        hit = np.flatnonzero(self.nearest != self.EMPTY)
        key = self.nearest.take(hit)
        return hit, key & 0xFFFFFFFF, (key >> 32).astype(np.int32).view(np.float32)

    def ranges(self) -> Float32[np.ndarray, "hp wp"]:
        """Of the nearest points; 0 = none."""
        hit, _, ranges = self.winners()
        found = np.zeros(len(self.nearest), np.float32)
        found[hit] = ranges
        return found.reshape(self.camera.height, self.camera.width)


@lru_cache(maxsize=2)
def _nominal_rays(camera: PanoramaCamera) -> Planes:
    return np.ascontiguousarray(camera_rays(camera).reshape(-1, 3).T, np.float32)


@lru_cache(maxsize=8)
def _ray_table(intrinsics: bytes, size: tuple[int, int]) -> Planes:
    """Unit rays of all pixels: 6 MB for a camera of OPV2V, whose four are alike."""
    pixels = np.arange(size[0] * size[1], dtype=np.int32)
    return unit_rays(pixels, np.frombuffer(intrinsics).reshape(3, 3), size[1])


def _dot(a: Planes, b: Planes) -> Float32[np.ndarray, " n"]:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class _DepthImage(NamedTuple):
    """The depth of one camera. Pixels are flat, row-major.

    Attributes:
        rays: unit rays of the pixels.
        z: depth along the optical axis.
        inverse_z: its inverse, infinite where unknown, with a row of that before and after the image.
        intrinsics, rotation, offset: of the camera, the latter two from its frame into the agent's.
        width: of the image.
    """

    rays: Planes
    z: Float32[np.ndarray, " n"]
    inverse_z: Float32[np.ndarray, " m"]
    intrinsics: Float32[np.ndarray, "3 3"]
    rotation: Float32[np.ndarray, "3 3"]
    offset: Float32[np.ndarray, "3 1"]
    width: int

    @classmethod
    def of(cls, rig: Rig, slot: int, depth: Float32[np.ndarray, "h w"]) -> _DepthImage:
        rays, width = _ray_table(rig.intrinsics[slot].tobytes(), rig.image_size), depth.shape[1]
        z = rays[2] * depth.reshape(-1)
        inverse_z = np.full(len(z) + 2 * width, np.inf, np.float32)
        with np.errstate(divide="ignore"):
            np.divide(1, z, out=inverse_z[width:-width])
        rotation, offset = np.split(rig.agent_from_camera[slot, :3].astype(np.float32), [3], axis=1)
        return cls(rays, z, inverse_z, rig.intrinsics[slot].astype(np.float32), rotation, offset, width)

    def on_planes(self, part: slice) -> Bool[np.ndarray, " n"]:
        """Pixels whose neighborhood is one plane: inverse z-depth, there, is linear in the image."""
        inner, ahead, behind, below, above = (
            self.inverse_z[part.start + self.width + step : part.stop + self.width + step]
            for step in (0, 1, -1, self.width, -self.width)
        )
        with np.errstate(invalid="ignore"):  # no comparison with what is unknown is true
            limit, twice = np.float32(PLANARITY) * inner, 2 * inner
            planar = np.abs(ahead + behind - twice) < limit
            planar &= np.abs(below + above - twice) < limit
        for border in (0, self.width - 1):
            planar[(border - part.start) % self.width :: self.width] = False
        return planar

    def carried(self, pixel: Int[np.ndarray, " n"], toward: Planes) -> Float32[np.ndarray, " n"]:
        """Ranges at which rays from the agent's center meet the tangent planes of some pixels on planes."""
        (fx, _, cx), (_, fy, cy), _ = self.intrinsics
        row, column = rows_and_columns(pixel.astype(np.int32), self.width)
        x, y = (column + (np.float32(0.5) - cx)) / fx, (row + (np.float32(0.5) - cy)) / fy
        z, ahead, behind, below, above = (self.z.take(pixel + step) for step in (0, 1, -1, self.width, -self.width))
        right = (x * (ahead - behind) + (ahead + behind) / fx, y * (ahead - behind), ahead - behind)
        down = (x * (below - above), y * (below - above) + (below + above) / fy, below - above)
        normal = np.stack([
            right[1] * down[2] - right[2] * down[1],
            right[2] * down[0] - right[0] * down[2],
            right[0] * down[1] - right[1] * down[0],
        ])  # fmt: skip
        from_center = self.rotation.T @ self.offset
        point = np.stack([x * z, y * z, z]) + from_center
        with np.errstate(divide="ignore", invalid="ignore"):
            return _dot(normal, point) / _dot(normal, self.rotation.T @ toward)
