"""Ground-truth geometry of a panorama as an ideal camera at the agent's center would see it (numpy)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Int

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import unit_rays

PLANARITY = 0.02
"""Largest second difference of inverse depth, relative to inverse depth, between neighbors on one surface."""


def central_geometry(
    camera: PanoramaCamera, rig: Rig, depths: Float32[np.ndarray, "k h w"], dense: bool
) -> Float32[np.ndarray, "hp wp"]:
    """Range along the nominal rays that an ideal camera at the agent's center would see; 0 = unknown.

    The points of all cameras are splatted with a z-buffer. A splatted point lies off the pixel's center; with dense
    depth its range is carried to the center along the local tangent plane, and points at depth edges, which have none,
    are dropped. Sparse depth keeps the point's own range.
    """
    height, width = rig.image_size
    chosen = _on_planes(rig, depths) if dense else depths > 0
    pixels, sources, parts = [], [], []
    for slot, is_chosen in enumerate(chosen):
        source = np.flatnonzero(is_chosen)
        points = _points_in_agent(rig, slot, source, depths[slot].reshape(-1).take(source))
        place, inside = camera.project(points.T)
        seen = np.flatnonzero(inside)
        column, row = (place[:, axis].take(seen).astype(np.int32) for axis in (0, 1))
        pixels.append(row * camera.width + column)
        sources.append(source.take(seen) + slot * height * width)
        parts.append(points.take(seen, axis=1))
    pixel, points = np.concatenate(pixels), np.concatenate(parts, axis=1)
    distance = np.sqrt(points[0] ** 2 + points[1] ** 2 + points[2] ** 2)
    ranges = np.full(camera.height * camera.width, np.inf, np.float32)
    np.minimum.at(ranges, pixel, distance)
    first = np.flatnonzero(distance == ranges[pixel])
    nearest = np.full(ranges.shape, -1, np.intp)
    nearest[pixel[first]] = first
    hit = np.flatnonzero(nearest >= 0)
    ranges[nearest < 0] = 0
    if dense:
        nearest = nearest[hit]
        normal = _normals_in_agent(rig, depths, np.concatenate(sources)[nearest])
        facing = (normal * _nominal_rays(camera).take(hit, axis=1)).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            carried = (normal * points.take(nearest, axis=1)).sum(axis=0) / facing
            plausible = np.abs(carried - ranges[hit]) < 0.1 * ranges[hit]
        ranges[hit] = np.where(plausible, carried, 0)
    return ranges.reshape(camera.height, camera.width)


@lru_cache(maxsize=2)
def _nominal_rays(camera: PanoramaCamera) -> Float32[np.ndarray, "3 n"]:
    return np.ascontiguousarray(camera_rays(camera).reshape(-1, 3).T, np.float32)


def _points_in_agent(
    rig: Rig, slot: int, source: Int[np.ndarray, " n"], ranges: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "3 n"]:
    """3D points of a camera's pixels (flat, row-major) at given ranges."""
    pose = rig.agent_from_camera[slot].astype(np.float32)
    points = pose[:3, :3] @ (unit_rays(source, rig.intrinsics[slot], rig.image_size[1]) * ranges)
    points += pose[:3, 3:]
    return points


def _on_planes(rig: Rig, depths: Float32[np.ndarray, "k h w"]) -> Bool[np.ndarray, "k h w"]:
    """Camera pixels whose neighborhood is one plane: inverse z-depth, there, is linear in the image."""
    height, width = rig.image_size
    planar = np.zeros(depths.shape, bool)
    for slot, matrix in enumerate(rig.intrinsics.astype(np.float32)):
        x = (np.arange(width, dtype=np.float32) + 0.5 - matrix[0, 2]) / matrix[0, 0]
        y = (np.arange(height, dtype=np.float32) + 0.5 - matrix[1, 2]) / matrix[1, 1]
        inverse_z = np.zeros(depths.shape[1:], np.float32)
        np.divide(np.sqrt(1 + x * x + (y * y)[:, None]), depths[slot], out=inverse_z, where=depths[slot] > 0)
        inner = inverse_z[1:-1, 1:-1]
        limit = np.float32(PLANARITY) * inner
        on_plane = planar[slot, 1:-1, 1:-1]
        on_plane[...] = inner > 0
        for ahead, behind in (
            (inverse_z[1:-1, 2:], inverse_z[1:-1, :-2]),
            (inverse_z[2:, 1:-1], inverse_z[:-2, 1:-1]),
        ):
            on_plane &= (np.abs(ahead + behind - 2 * inner) < limit) & (ahead > 0) & (behind > 0)
    return planar


def _normals_in_agent(
    rig: Rig, depths: Float32[np.ndarray, "k h w"], source: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "3 n"]:
    """Unnormalized surface normals at flat pixels of all cameras, none of them on an image's border."""
    height, width = rig.image_size
    normals = np.empty((3, len(source)), np.float32)
    camera = source // (height * width)
    for slot in range(len(depths)):
        here, flat = np.flatnonzero(camera == slot), depths[slot].reshape(-1)
        pixel = source[here] - slot * height * width
        tangents = []
        for step in (1, width):
            ahead, behind = (
                unit_rays(place, rig.intrinsics[slot], width) * flat[place] for place in (pixel + step, pixel - step)
            )
            tangents.append(ahead - behind)
        normal = np.cross(tangents[0], tangents[1], axis=0)
        normals[:, here] = rig.agent_from_camera[slot, :3, :3].astype(np.float32) @ normal
    return normals
