"""Which points lie in which oriented boxes (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def inside_boxes(
    points: Float[np.ndarray, "n 3"],
    points_from_box: Float[np.ndarray, "m 4 4"],
    half_extents: Float[np.ndarray, "m 3"],
    margin_m: float = 0.0,
    floor_m: float = 0.0,
) -> Bool[np.ndarray, " n"]:
    """Whether each point lies in any of the boxes.

    Only points inside the sphere around a box are turned into the box's frame, so that a hundred thousand points and
    dozens of boxes take some milliseconds.

    Args:
        points: in any frame.
        points_from_box: poses of the boxes in that frame, the origin at the center, the second axis pointing down.
        half_extents: half the sizes along the boxes' axes.
        margin_m: by how much the sides and the top are moved outward.
        floor_m: by how much the bottom is moved upward, so that the road under a vehicle does not count as the vehicle.
    """
    inside = np.zeros(len(points), dtype=bool)
    if not (len(points) and len(half_extents)):
        return inside
    radius = np.linalg.norm(half_extents + max(margin_m, 0.0), axis=1)
    centers = points_from_box[:, :3, 3]
    # |p - c|^2 < r^2 by one matrix product; coordinates relative to the boxes' mean limit cancellation
    middle = centers.mean(axis=0)
    local, local_centers = (points - middle).astype(np.float32), (centers - middle).astype(np.float32)
    limit = (radius + 0.1) ** 2 - (local_centers**2).sum(axis=1)
    excess = local @ (-2 * local_centers.T)
    excess += np.einsum("ni,ni->n", local, local)[:, None]
    point, box = np.nonzero(excess < limit)
    offset = points[point].astype(np.float64) - centers[box]
    place = np.einsum("kji,kj->ki", points_from_box[box, :3, :3], offset)
    upper = half_extents[box] + margin_m
    lower = -upper
    upper[:, 1] = half_extents[box, 1] - floor_m
    hit = ((place >= lower) & (place <= upper)).all(axis=1)
    inside[point[hit]] = True
    return inside
