"""Ground-truth geometry of a panorama from the cameras' depth or a LiDAR sweep (numpy)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.geometry.panorama import PanoramaSpec, PanoramaWarp, pinhole_numbers, surface_range_from
from coopmap.geometry.rig import Rig


@dataclass(frozen=True, eq=False)
class SeenPoints:
    """Measured points, each with the pixel of one camera that sees it; a point may be seen by several cameras.

    Attributes:
        points: in the agent frame, as measured.
        camera: that sees them, slot order.
        pixel: flat pixel of that camera's image, row-major; at most one point in each.
        ranges: distance from that camera.
        image_size: ``(height, width)`` of every camera.
        num_cameras: of the rig.
    """

    points: Float32[np.ndarray, "n 3"]
    camera: Int[np.ndarray, " n"]
    pixel: Int[np.ndarray, " n"]
    ranges: Float32[np.ndarray, " n"]
    image_size: tuple[int, int]
    num_cameras: int

    def __getitem__(self, chosen: Bool[np.ndarray, " n"]) -> SeenPoints:
        """Some of the points."""
        return replace(
            self,
            points=self.points[chosen],
            camera=self.camera[chosen],
            pixel=self.pixel[chosen],
            ranges=self.ranges[chosen],
        )

    def resized(self, height: int, width: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Row and column, in images resized to ``height`` x ``width``, that hold the center of each camera pixel."""
        row, column = rows_and_columns(self.pixel, self.image_size[1])
        return (2 * row + 1) * height // (2 * self.image_size[0]), (2 * column + 1) * width // (2 * self.image_size[1])

    def nearest_in(
        self, at: Int[np.ndarray, " n"], num_pixels: int
    ) -> tuple[Int[np.ndarray, " m"], Float32[np.ndarray, "m 3"]]:
        """Flat pixels of a view that show a point, and these points in the agent frame, for :func:`scattered`.

        Of several in a pixel the one nearest to the camera stays: it hides the others.

        Args:
            at: flat pixel of the view that holds each point.
            num_pixels: of the view.
        """
        nearest = nearest_per_pixel(at, self.ranges, num_pixels)
        return at[nearest], self.points[nearest]


class NearestPixels(NamedTuple):
    """The camera that each pixel of a view shows, and which of its pixels (flat); -1 = none."""

    winner: Int[np.ndarray, "h w"]
    source: Int[np.ndarray, "h w"]


def rows_and_columns(pixel: Int[np.ndarray, " n"], width: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Of flat pixels; ``np.divmod`` takes several times as long."""
    row = pixel // pixel.dtype.type(width)
    return row, pixel - row * pixel.dtype.type(width)


def unit_rays(
    pixel: Int[np.ndarray, " n"], intrinsics: Float[np.ndarray, "3 3"], width: int
) -> Float32[np.ndarray, "3 n"]:
    """Unit rays through the centers of flat pixels of an image."""
    rays = np.empty((3, len(pixel)), np.float32)
    row, column = rows_and_columns(pixel, width)
    (fx, _, cx), (_, fy, cy), _ = intrinsics.astype(np.float32)
    x, y, z = rays
    np.divide(column.astype(np.float32) + (np.float32(0.5) - cx), fx, out=x)
    np.divide(row.astype(np.float32) + (np.float32(0.5) - cy), fy, out=y)
    np.divide(1, np.sqrt(x * x + y * y + 1), out=z)
    x *= z
    y *= z
    return rays


def content_geometry(
    pixels: PanoramaWarp | NearestPixels,
    rig: Rig,
    depths: Float32[np.ndarray, "k h w"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
    shift: int = 0,
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """The 3D point that each panorama pixel shows, as direction and range from the agent's center.

    Args:
        pixels: the camera pixels that the panorama shows.
        rig: the exact calibration of this frame, in the frame that the answer is given in.
        depths: dense range along the unit ray of each camera pixel, 0 = unknown.
        nominal_rays: directions for the pixels without depth.
        shift: columns that the panorama is rolled by: column ``shift`` of the warp becomes column 0.

    Returns:
        Unit rays and ranges (0 = unknown).

    Raises:
        ValueError: if depth is not of the rig's image size.
    """
    if depths.shape != (len(rig.intrinsics), *rig.image_size):
        raise ValueError(f"expected depth of {rig.image_size}, got {depths.shape}")
    from coopmap.geometry.kernels.shown_points import shown_points

    rays, flat = np.empty_like(nominal_rays), (len(nominal_rays), -1)
    ranges = np.empty(nominal_rays.shape[:2], np.float32)
    shown_points(
        pixels.winner,
        pixels.source,
        depths,
        *camera_numbers(rig),
        nominal_rays.reshape(flat),
        shift,
        rays.reshape(flat),
        ranges,
    )
    return rays, ranges


def camera_numbers(rig: Rig) -> tuple[Float32[np.ndarray, "k 4"], Float32[np.ndarray, "k 3 4"]]:
    """What kernels know of a rig: focal lengths and principal points, and poses without their last row."""
    intrinsics = pinhole_numbers(rig.intrinsics).astype(np.float32)
    return intrinsics, np.ascontiguousarray(rig.agent_from_camera[:, :3], np.float32)


def placed_points(
    seen: SeenPoints,
    warp: PanoramaWarp,
    rig: Rig,
    spec: PanoramaSpec,
    warp_from_agent: Float[np.ndarray, "3 3"],
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
    """Measured points, each in the panorama pixel that shows it; of several in a pixel the nearest stays.

    The camera's line of sight through a point meets the proxy surface in one place; the panorama shows the point in the
    direction of that place, if the camera is the winner there. So every point finds its pixel, where asking each pixel
    for the nearest camera pixel finds one point in six: camera pixels are several times as dense.

    Args:
        seen: points that cameras see.
        warp: the sampling pattern.
        rig: calibration in the agent's own frame, where the proxy surface is.
        spec: the panorama.
        warp_from_agent: rotation into the frame that the warp was made in.

    Returns:
        Flat pixels of the warp that show a point, and these points in the agent frame: for :func:`scattered`.
    """
    pixel, shows = panorama_pixels(seen, warp, rig, spec, warp_from_agent)
    at, points = pixel[shows], seen.points[shows]
    nearest = nearest_per_pixel(at, _length(points), warp.winner.size)
    return at[nearest], points[nearest]


def scattered(
    at: Int[np.ndarray, " n"],
    points: Float32[np.ndarray, "n 3"],
    view_from_agent: Float[np.ndarray, "3 3"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
    shift: int = 0,
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """Points as directions and ranges in the pixels that show them.

    Args:
        at: flat pixel of each point, no pixel twice.
        points: agent frame.
        view_from_agent: rotation into the frame of the answer, that of the rolled panorama.
        nominal_rays: directions for the pixels without a point.
        shift: columns that the panorama is rolled by: column ``shift`` becomes column 0.

    Returns:
        Unit rays and ranges (0 = unknown) from the agent's center.
    """
    turned = points @ view_from_agent.T.astype(np.float32)
    distance = _length(turned)
    rays, ranges = nominal_rays.copy(), np.zeros(nominal_rays.shape[:2], np.float32)
    place = _rolled(at, shift, nominal_rays.shape[1])
    rays.reshape(-1, 3)[place] = turned / np.maximum(distance, np.float32(1e-12))[:, None]
    ranges.reshape(-1)[place] = distance
    return rays, ranges


def _length(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Norms, coordinate by coordinate: numpy is slow on short axes."""
    x, y, z = vectors.T
    return np.sqrt(x * x + y * y + z * z)


def _rolled(at: Int[np.ndarray, " n"], shift: int, width: int) -> Int[np.ndarray, " n"]:
    """Flat pixels after a roll that moves column ``shift`` to column 0."""
    return at if shift == 0 else at - shift + width * (at % width < shift)


def panorama_pixels(
    seen: SeenPoints, warp: PanoramaWarp, rig: Rig, spec: PanoramaSpec, warp_from_agent: Float[np.ndarray, "3 3"]
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Flat pixel in whose direction each point is shown, and whether it is shown there; see :func:`placed_points`."""
    height, width = warp.winner.shape
    origin = rig.agent_from_camera[seen.camera, :3, 3].astype(np.float32)
    direction = seen.points - origin
    direction /= _length(direction)[:, None]
    reach = surface_range_from(origin, direction, spec.surface, spec.radius_m, rig.ground_height_m)
    place = direction if spec.surface == "infinite" else origin + direction * reach[:, None]
    pixel, inside = spec.camera.project(place @ warp_from_agent.T.astype(np.float32))
    column, row = np.floor(np.where(inside[:, None], pixel, 0)).astype(np.int32).T
    row, column = np.minimum(row, height - 1), np.minimum(column, width - 1)
    return row * width + column, inside & (warp.winner[row, column] == seen.camera)


def nearest_per_pixel(
    pixel: Int[np.ndarray, " n"], distance: Float32[np.ndarray, " n"], num_pixels: int
) -> Int[np.ndarray, " m"]:
    """Which points are the nearest of their pixel, in order."""
    # the bits of positive floats are ordered as the floats are; the number of the point makes each key unique
    key = distance.astype(np.float32).view(np.int32).astype(np.int64) << 32 | np.arange(len(pixel))
    nearest = np.full(num_pixels, np.iinfo(np.int64).max)
    np.minimum.at(nearest, pixel, key)
    return np.flatnonzero(nearest.take(pixel) == key)
