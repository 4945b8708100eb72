"""Ground-truth geometry of a panorama from the cameras' depth (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays, pixel_centers
from coopmap.geometry.panorama import PanoramaWarp
from coopmap.geometry.rig import Rig

PLANARITY = 0.02
"""Largest second difference of inverse depth, relative to inverse depth, between neighbors on one surface."""


def content_geometry(
    warp: PanoramaWarp, rig: Rig, depths: Float32[np.ndarray, "k h w"], nominal_rays: Float[np.ndarray, "hp wp 3"]
) -> tuple[Float32[np.ndarray, "hp wp 3"], Float32[np.ndarray, "hp wp"]]:
    """The 3D point that each panorama pixel shows, as direction and range from the agent's center.

    Args:
        warp: the sampling pattern.
        rig: the exact calibration of this frame.
        depths: range along the unit ray of each camera pixel, 0 = unknown.
        nominal_rays: directions for the pixels without depth.

    Returns:
        Unit rays and ranges (0 = unknown) in the agent frame.
    """
    rays, ranges = nominal_rays.astype(np.float32), np.zeros(warp.winner.shape, np.float32)
    flat_depths = depths.reshape(len(depths), -1)
    known = warp.covered & (flat_depths[warp.winner, warp.source] > 0)
    winner, source = warp.winner[known], warp.source[known]
    points = _points_in_agent(rig, winner, source, flat_depths[winner, source])
    distance = np.linalg.norm(points, axis=-1)
    rays[known] = points / distance[:, None]
    ranges[known] = distance
    return rays, ranges


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
