"""Registration of the agents' LiDAR sweeps, starting from pose priors (optional extra ``icp``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from coopmap.data.opv2v.lidar import drop_own_body
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.se3_numpy import invert, relative_pose, rotation_angle

INSTALL_HINT = "not installed: pip install coopmap[icp]"
VOXEL_M = 0.3
REACHES_M = (4.0, 2.0, 1.0)
"""Largest distance between matched points in each pass."""
MAX_ITERATIONS = 40
LARGEST_CORRECTION_M, LARGEST_CORRECTION_DEG = 6.0, 20.0
"""A registration that ends farther from its start has converged to something else."""
MIN_OVERLAP = 0.15
"""Share of matched points below which a registration is discarded."""
MIN_POINTS = 20
"""LiDAR sweeps with fewer points after downsampling are not registered: a surface is estimated from this many
neighbors."""
MIN_RELATIVE_STIFFNESS = 1e-6
"""Smallest eigenvalue of the normalized Hessian (ones on its diagonal) of a pose that is determined. Points on a line
give 0 up to rounding, of 1e-14; a street between walls gives 0.9."""


def is_available() -> bool:
    """Whether small_gicp is installed."""
    return find_spec("small_gicp") is not None


def register_sweeps(
    sweeps: Sequence[Float[np.ndarray, "n 3"]], poses: Float[np.ndarray, "v 4 4"]
) -> tuple[Float[np.ndarray, "v 4 4"], int]:
    """Improve pose priors by generalized ICP between the LiDAR sweeps of all pairs of agents.

    Pairs that overlap are averaged like the passes of a model; agents without a registration keep their pose prior
    relative to the others, among them those with fewer than :data:`MIN_POINTS` points and those whose points do not
    determine a pose, such as points on a line.

    Args:
        sweeps: points of each agent in its own frame; points that are not finite are left out.
        poses: prior ``T_world_agent``.

    Returns:
        ``T_0_j``, and the number of pairs that were registered.
    """
    num_agents = len(sweeps)
    clouds = [prepare_sweep(points) for points in sweeps]
    relative = relative_pose(poses[:, None], poses)
    weight = np.full((num_agents, num_agents), 1e-4)  # the start decides only what the data leave open
    num_registered = 0
    for i in range(num_agents):
        for j in range(i + 1, num_agents):
            found = register_pair(clouds[i], clouds[j][0], relative[i, j])
            if found is not None:
                relative[i, j], weight[i, j] = found
                relative[j, i], weight[j, i] = invert(found[0]), found[1]
                num_registered += 1
    averaged = average_relative_poses(torch.from_numpy(relative)[None, None], torch.from_numpy(weight)[None, None])
    return averaged[0].numpy(), num_registered


def prepare_sweep(points: Float[np.ndarray, "n 3"]) -> tuple[Any, Any]:
    """Downsampled points with their covariances, and their search tree."""
    import small_gicp

    cloud, tree = small_gicp.preprocess_points(_on_others(points).astype(np.float64), VOXEL_M, num_threads=1)
    return cloud, tree


def _on_others(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Finite points that are not on the ego vehicle."""
    return drop_own_body(points[np.isfinite(points).all(axis=1)])


def register_pair(
    target: tuple[Any, Any], source: Any, start: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "4 4"], float] | None:
    """``T_target_source`` and the share of the source's points that are matched; ``None`` if it is implausible.

    Args:
        target: of :func:`prepare_sweep`.
        source: likewise, without the tree.
        start: rough ``T_target_source``.
    """
    import small_gicp

    (cloud, tree), pose = target, start
    if min(cloud.size(), source.size()) < MIN_POINTS or not np.isfinite(start).all():
        return None
    for reach in REACHES_M:
        result = small_gicp.align(
            cloud,
            source,
            tree,
            init_T_target_source=pose,
            max_correspondence_distance=reach,
            num_threads=1,
            max_iterations=MAX_ITERATIONS,
        )
        pose = result.T_target_source
    overlap = result.num_inliers / source.size()
    change = relative_pose(start, pose)
    moved_m, turned_deg = np.linalg.norm(change[:3, 3]), np.rad2deg(rotation_angle(change[:3, :3]))
    close = moved_m <= LARGEST_CORRECTION_M and turned_deg <= LARGEST_CORRECTION_DEG  # False for NaN
    return (pose, overlap) if close and overlap >= MIN_OVERLAP and _is_determined(result.H) else None


def _is_determined(hessian: Float[np.ndarray, "6 6"]) -> bool:
    """Whether the matched points determine all of a pose, independent of the units of its rotation and translation."""
    size = np.sqrt(np.maximum(np.diag(hessian), 0))
    if not (np.isfinite(hessian).all() and (size > 0).all()):
        return False
    return bool(np.linalg.eigvalsh(hessian / np.outer(size, size))[0] > MIN_RELATIVE_STIFFNESS)
