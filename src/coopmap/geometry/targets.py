"""Ground-truth geometry of a panorama from the cameras' depth or a LiDAR sweep (numpy)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays, pixel_centers
from coopmap.geometry.panorama import PanoramaSpec, PanoramaWarp, surface_range_from
from coopmap.geometry.rig import Rig

PLANARITY = 0.02
"""Largest second difference of inverse depth, relative to inverse depth, between neighbors on one surface."""


@dataclass(frozen=True, eq=False)
class ShownPixels:
    """The camera pixels that a panorama shows, one block per camera.

    Coordinates lie along the first axis: numpy is slow on short last axes.

    Attributes:
        at: flat panorama pixels, those of the first camera first.
        source: flat pixels of all cameras' images, row-major, that these show.
        rays: unit rays of the sources in the frame of their own camera.
        start: where each camera's block starts, and the end of the last.
    """

    at: Int[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]
    rays: Float32[np.ndarray, "3 n"]
    start: tuple[int, ...]


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

    def depth_maps(self) -> Float32[np.ndarray, "k h w"]:
        """Range along the ray of each camera pixel, 0 where there is no point."""
        maps = np.zeros((self.num_cameras, *self.image_size), np.float32)
        maps.reshape(self.num_cameras, -1)[self.camera, self.pixel] = self.ranges
        return maps


def shown_pixels(warp: PanoramaWarp, intrinsics: Float[np.ndarray, "k 3 3"], size: tuple[int, int]) -> ShownPixels:
    """Sort the pixels of a warp by the camera that they show, and look their rays up.

    Args:
        warp: the sampling pattern.
        intrinsics: exact ones of the cameras.
        size: ``(height, width)`` of their images.
    """
    winner = warp.winner.reshape(-1)
    blocks = [np.flatnonzero(winner == camera) for camera in range(len(intrinsics))]
    sources = [warp.source.reshape(-1)[block] for block in blocks]
    rays = [
        _pixel_rays(*matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist(), size)[:, source]
        for matrix, source in zip(intrinsics, sources, strict=True)
    ]
    pixels_per_image = size[0] * size[1]
    return ShownPixels(
        at=np.concatenate(blocks),
        source=np.concatenate([source + slot * pixels_per_image for slot, source in enumerate(sources)]),
        rays=np.ascontiguousarray(np.concatenate(rays, axis=1)),
        start=tuple(np.cumsum([0, *map(len, blocks)]).tolist()),
    )


@lru_cache(maxsize=8)
def _pixel_rays(fx: float, fy: float, cx: float, cy: float, size: tuple[int, int]) -> Float32[np.ndarray, "3 n"]:
    """Unit rays of all pixels of an image."""
    matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    rays = camera_rays(PinholeCamera(matrix, *size)).reshape(-1, 3)
    return np.ascontiguousarray(rays.T, dtype=np.float32)


def content_geometry(
    shown: ShownPixels,
    rig: Rig,
    depths: Float32[np.ndarray, "k h w"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
    shift: int = 0,
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """The 3D point that each panorama pixel shows, as direction and range from the agent's center.

    Args:
        shown: the camera pixels that the panorama shows.
        rig: the exact calibration of this frame, in the frame that the answer is given in.
        depths: dense range along the unit ray of each camera pixel, 0 = unknown.
        nominal_rays: directions for the pixels without depth.
        shift: columns that the panorama is rolled by: column ``shift`` of the warp becomes column 0.

    Returns:
        Unit rays and ranges (0 = unknown).
    """
    depth = depths.reshape(-1)[shown.source]
    pose = rig.agent_from_camera.astype(np.float32)
    points = np.empty_like(shown.rays)
    for camera, (first, last) in enumerate(zip(shown.start[:-1], shown.start[1:], strict=True)):
        block = points[:, first:last]
        np.matmul(pose[camera, :3, :3], shown.rays[:, first:last] * depth[first:last], out=block)
        block += pose[camera, :3, 3:]
    return _written(points, depth > 0, _rolled(shown.at, shift, nominal_rays.shape[1]), nominal_rays)


def scattered_geometry(
    seen: SeenPoints,
    warp: PanoramaWarp,
    rig: Rig,
    spec: PanoramaSpec,
    view_from_agent: Float[np.ndarray, "3 3"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
    shift: int = 0,
    warp_from_agent: Float[np.ndarray, "3 3"] | None = None,
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """Measured points as direction and range, each in the panorama pixel that shows it.

    The camera's line of sight through a point meets the proxy surface in one place; the panorama shows the point in the
    direction of that place, if the camera is the winner there. So every point finds its pixel, where asking each pixel
    for the nearest camera pixel finds one point in six: camera pixels are several times as dense. The nearest of the
    points in a pixel stays, with its own direction and range.

    Args:
        seen: points that cameras see.
        warp: the sampling pattern.
        rig: calibration in the agent's own frame, where the proxy surface is.
        spec: the panorama.
        view_from_agent: rotation into the frame that the warp was made in and, by ``shift`` columns, rolled.
        nominal_rays: directions for the pixels without a point.
        shift: columns that the panorama is rolled by.
        warp_from_agent: rotation into the frame that the warp was made in, if that is not the agent's.

    Returns:
        Unit rays and ranges (0 = unknown) in the view's frame.
    """
    at, points = placed_points(seen, warp, rig, spec, np.eye(3) if warp_from_agent is None else warp_from_agent)
    return scattered(at, points, view_from_agent, nominal_rays, shift)


def placed_points(
    seen: SeenPoints,
    warp: PanoramaWarp,
    rig: Rig,
    spec: PanoramaSpec,
    warp_from_agent: Float[np.ndarray, "3 3"],
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
    """The first half of :func:`scattered_geometry`: flat pixels of the warp that show a point, and these points."""
    pixel, shows = panorama_pixels(seen, warp, rig, spec, warp_from_agent)
    at, points = pixel[shows], seen.points[shows]
    nearest = nearest_per_pixel(at, np.linalg.norm(points, axis=-1), warp.winner.size)
    return at[nearest], points[nearest]


def scattered(
    at: Int[np.ndarray, " n"],
    points: Float32[np.ndarray, "n 3"],
    view_from_agent: Float[np.ndarray, "3 3"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
    shift: int = 0,
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """The second half: points as directions and ranges in the view's frame, in the pixels of the rolled panorama."""
    turned = view_from_agent.astype(np.float32) @ points.T
    return _written(turned, np.ones(len(at), bool), _rolled(at, shift, nominal_rays.shape[1]), nominal_rays)


def panorama_pixels(
    seen: SeenPoints,
    warp: PanoramaWarp,
    rig: Rig,
    spec: PanoramaSpec,
    view_from_agent: Float[np.ndarray, "3 3"],
    shift: int = 0,
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Flat pixel of the rolled panorama in whose direction each point is shown, and whether it is shown there."""
    height, width = warp.winner.shape
    origin = rig.agent_from_camera[seen.camera, :3, 3].astype(np.float32)
    direction = seen.points - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    reach = surface_range_from(origin, direction, spec.surface, spec.radius_m, rig.ground_height_m)
    place = direction if spec.surface == "infinite" else origin + direction * reach[:, None]
    pixel, inside = spec.camera.project(place @ view_from_agent.T.astype(np.float32))
    column, row = np.floor(np.where(inside[:, None], pixel, 0)).astype(np.int32).T
    row, column = np.minimum(row, height - 1), np.minimum(column, width - 1)
    shows = inside & (warp.winner[row, (column + shift) % width] == seen.camera)
    return row * width + column, shows


def nearest_per_pixel(
    pixel: Int[np.ndarray, " n"], distance: Float32[np.ndarray, " n"], num_pixels: int
) -> Int[np.ndarray, " m"]:
    """Which points are the nearest of their pixel, in order."""
    far_to_near = np.argsort(-distance)
    owner = np.empty(num_pixels, np.int32)
    owner[pixel[far_to_near]] = far_to_near  # the nearest is written last and stays
    return np.flatnonzero(owner[pixel] == np.arange(len(pixel)))


def _rolled(at: Int[np.ndarray, " n"], shift: int, width: int) -> Int[np.ndarray, " n"]:
    """Flat pixels after a roll that moves column ``shift`` to column 0."""
    return at if shift == 0 else at - shift + width * (at % width < shift)


def _written(
    points: Float32[np.ndarray, "3 n"],
    known: Bool[np.ndarray, " n"],
    at: Int[np.ndarray, " n"],
    nominal_rays: Float32[np.ndarray, "hp wp 3"],
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """Maps of directions and ranges that hold the known points at flat pixels ``at``.

    Written plane by plane: three times as fast as rows of three.
    """
    distance = np.sqrt(points[0] ** 2 + points[1] ** 2 + points[2] ** 2)
    points /= np.maximum(distance, np.float32(1e-12))
    distance *= known
    ranges = np.zeros(nominal_rays.shape[:2], np.float32)
    ranges.reshape(-1)[at] = distance
    unknown = at[~known]
    planes = [np.ascontiguousarray(plane) for plane in cv2.split(nominal_rays)]
    for plane, nominal, values in zip(planes, cv2.split(nominal_rays), points, strict=True):
        flat = plane.reshape(-1)
        flat[at] = values
        flat[unknown] = nominal.reshape(-1)[unknown]
    return cv2.merge(planes), ranges


def central_geometry(
    camera: PanoramaCamera, rig: Rig, depths: Float32[np.ndarray, "k h w"], dense: bool
) -> Float32[np.ndarray, "hp wp"]:
    """Range along the nominal rays that an ideal camera at the agent's center would see; 0 = unknown.

    The points of all cameras are splatted with a z-buffer. A splatted point lies off the pixel's center; with dense
    depth its range is carried to the center along the local tangent plane, and points at depth edges, which have none,
    are dropped. Sparse depth keeps the point's own range.
    """
    cameras, sources = (index.astype(np.int32) for index in np.nonzero(depths.reshape(len(depths), -1) > 0))
    points = _points_in_agent(rig, cameras, sources, depths.reshape(len(depths), -1)[cameras, sources])
    normals = None
    if dense:
        normals, planar = _normals_in_agent(rig, depths, cameras, sources)
        points, normals = points[planar], normals[planar]
    pixels, inside = camera.project(points)
    columns, rows = np.floor(pixels[inside]).astype(np.int64).T
    points = points[inside]
    distance = np.linalg.norm(points, axis=-1)
    front_to_back = np.argsort(-distance, kind="stable")  # the nearest is written last and stays
    nearest = np.full(camera.height * camera.width, -1)
    nearest[(rows * camera.width + columns)[front_to_back]] = front_to_back
    hit = nearest >= 0
    ranges = np.zeros(nearest.shape, np.float32)
    ranges[hit] = distance[nearest[hit]]
    if normals is not None:
        rays = camera_rays(camera).reshape(-1, 3)[hit]
        normal = normals[inside][nearest[hit]]
        facing = np.einsum("ni,ni->n", normal, rays)
        with np.errstate(divide="ignore", invalid="ignore"):
            carried = np.einsum("ni,ni->n", normal, points[nearest[hit]]) / facing
            plausible = np.abs(carried - ranges[hit]) < 0.1 * ranges[hit]
        ranges[hit] = np.where(plausible, carried, 0)
    return ranges.reshape(camera.height, camera.width)


def _points_in_agent(
    rig: Rig, camera: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"], ranges: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 3"]:
    """3D points of camera pixels (flat, row-major) at given ranges."""
    width = rig.image_size[1]
    pixels = np.stack([source % width + 0.5, source // width + 0.5, np.ones(len(source))], axis=-1)
    rotation = rig.agent_from_camera[:, :3, :3]
    direction = np.einsum("nij,nj->ni", (rotation @ np.linalg.inv(rig.intrinsics))[camera], pixels)
    scale = ranges / np.linalg.norm(direction, axis=-1)
    return direction * scale[:, None] + rig.agent_from_camera[camera, :3, 3]


def _normals_in_agent(
    rig: Rig, depths: Float32[np.ndarray, "k h w"], camera: Int[np.ndarray, " n"], source: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Unnormalized surface normals at camera pixels, and where the neighborhood is one plane."""
    height, width = rig.image_size
    centers = pixel_centers(height, width)
    rays = np.stack([PinholeCamera(matrix, height, width).unproject(centers) for matrix in rig.intrinsics])
    rays, inverse_z = rays.astype(np.float32), np.zeros_like(depths)
    np.divide(1, depths * rays[..., 2], out=inverse_z, where=depths > 0)
    row, column = source // width, source % width
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    row, column = np.clip(row, 1, height - 2), np.clip(column, 1, width - 2)
    planar = inner
    tangents = []
    for d_row, d_column in ((0, 1), (1, 0)):
        ahead = camera, row + d_row, column + d_column
        behind = camera, row - d_row, column - d_column
        # inverse z-depth is linear in the image on a plane
        bend = np.abs(inverse_z[ahead] + inverse_z[behind] - 2 * inverse_z[camera, row, column])
        planar = planar & (inverse_z[ahead] > 0) & (inverse_z[behind] > 0)
        planar &= bend < PLANARITY * inverse_z[camera, row, column]
        tangents.append(rays[ahead] * depths[ahead][:, None] - rays[behind] * depths[behind][:, None])
    normals = np.cross(tangents[0], tangents[1])
    return np.einsum("nij,nj->ni", rig.agent_from_camera[camera, :3, :3], normals), planar
