"""From poses of single pairs of agents, some of them missing, to poses of all pairs that a chain links."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopmap.geometry import relative_pose
from coopmap.geometry.pose_averaging import average_relative_poses, over_agents


def average_pairs(
    pose: Float[Tensor, "p 4 4"], weight: Float[Tensor, " p"], num_agents: int
) -> Float[Tensor, "n n 4 4"]:
    """``T_i_j`` that agree best with what was measured; NaN where no chain of measurements leads from i to j.

    Args:
        pose: ``T_i_j`` of the pairs ``i < j``, ordered 01, 02, ..., 12, ....
        weight: at least 0; 0 where a pair has no pose.
        num_agents: agents of the sample.
    """
    measured, weights = (part[0] for part in over_agents(pose[None].cpu(), weight[None].cpu(), num_agents))
    result = torch.full((num_agents, num_agents, 4, 4), torch.nan, dtype=torch.float64)
    left: Int[Tensor, " r"] = torch.arange(num_agents)
    while len(left):
        rows, columns = left[:, None], left[None]
        in_first = average_relative_poses(measured[rows, columns][None, None], weights[rows, columns][None, None])[0]
        linked = in_first.isfinite().flatten(1).all(dim=1)
        linked[0], in_first[0] = True, torch.eye(4, dtype=torch.float64)
        group = left[linked]
        result[group[:, None], group] = relative_pose(in_first[linked][:, None], in_first[linked])
        left = left[~linked]
    return result
