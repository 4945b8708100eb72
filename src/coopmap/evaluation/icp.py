"""Registration of the agents' LiDAR sweeps, starting from rough poses (optional extra ``icp``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from coopmap.data.opv2v.lidar import drop_own_body
from coopmap.evaluation.refinement import average_relative_poses

INSTALL_HINT = "not installed: pip install coopmap[icp]"
VOXEL_M = 0.3
REACHES_M = (4.0, 2.0, 1.0)
"""Largest distance between matched points, from the first pass to the last."""
MAX_ITERATIONS = 40
LARGEST_CORRECTION_M, LARGEST_CORRECTION_DEG = 6.0, 20.0
"""A registration that ends farther from its start has locked on to something else."""
MIN_OVERLAP = 0.15
"""Share of points with a partner below which a registration says nothing."""


def is_available() -> bool:
    """Whether small_gicp is installed."""
    return find_spec("small_gicp") is not None


def register_sweeps(
    sweeps: Sequence[Float[np.ndarray, "n 3"]], poses: Float[np.ndarray, "v 4 4"]
) -> tuple[Float[np.ndarray, "v 4 4"], int]:
    """Improve rough poses by generalized ICP between the sweeps of all pairs of agents.

    Pairs that overlap are averaged like the passes of a model; agents without a registration keep their rough pose
    relative to the others.

    Args:
        sweeps: points of each agent in its own frame.
        poses: rough ``T_world_agent``.

    Returns:
        ``T_0_j``, and the number of pairs that were registered.
    """
    import small_gicp

    num_agents = len(sweeps)
    clouds = [
        small_gicp.preprocess_points(drop_own_body(points).astype(np.float64), VOXEL_M, num_threads=1)
        for points in sweeps
    ]
    relative = np.linalg.inv(poses)[:, None] @ poses
    weight = np.full((num_agents, num_agents), 1e-4)  # the start decides only what nothing else does
    num_registered = 0
    for i in range(num_agents):
        for j in range(i + 1, num_agents):
            found = _register(clouds[i], clouds[j][0], relative[i, j])
            if found is not None:
                relative[i, j], weight[i, j] = found
                relative[j, i], weight[j, i] = np.linalg.inv(found[0]), found[1]
                num_registered += 1
    averaged = average_relative_poses(torch.from_numpy(relative)[None, None], torch.from_numpy(weight)[None, None])
    return averaged[0].numpy(), num_registered


def _register(
    target: tuple[Any, Any], source: Any, start: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "4 4"], float] | None:
    """``T_target_source`` and the share of the source's points that have a partner; ``None`` if it is not credible.

    Clouds are preprocessed; the target's comes with its search tree.
    """
    import small_gicp

    (cloud, tree), pose = target, start
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
    overlap = result.num_inliers / max(1, source.size())
    change = np.linalg.inv(start) @ pose
    turn_deg = np.rad2deg(np.arccos(np.clip((np.trace(change[:3, :3]) - 1) / 2, -1, 1)))
    too_far = np.linalg.norm(change[:3, 3]) > LARGEST_CORRECTION_M or turn_deg > LARGEST_CORRECTION_DEG
    return None if too_far or overlap < MIN_OVERLAP or not np.isfinite(pose).all() else (pose, overlap)
