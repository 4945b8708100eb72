"""From poses of single pairs of agents, some of them missing, to poses of all pairs that a chain links."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopmap.geometry import relative_pose
from coopmap.geometry.pose_averaging import average_relative_poses, over_agents


def average_pairs(
    pose: Float[Tensor, "b p 4 4"], weight: Float[Tensor, "b p"], num_agents: int
) -> Float[Tensor, "b n n 4 4"]:
    """``T_i_j`` that agree best with what was measured, on the CPU; NaN where no chain of measurements links i and j.

    Args:
        pose: ``T_i_j`` of the pairs ``i < j``, ordered 01, 02, ..., 12, ....
        weight: at least 0; 0 where a pair has no pose.
        num_agents: agents of each sample.
    """
    measured, weights = over_agents(pose.cpu(), weight.cpu(), num_agents)
    result = torch.full_like(measured, torch.nan)
    left = torch.ones(len(pose), num_agents, dtype=torch.bool)
    while (rows := left.any(dim=1).nonzero()[:, 0]).numel():  # once per group of linked agents
        rest = left[rows]
        order = (rest.int().argmax(dim=1, keepdim=True) + torch.arange(num_agents)) % num_agents
        ahead = torch.empty(len(rows), num_agents, 4, 4, dtype=measured.dtype)
        among = weights[rows] * (rest[:, :, None] & rest[:, None])
        ahead[torch.arange(len(rows))[:, None], order] = _from_first(measured[rows], among, order)
        linked = rest & ahead.isfinite().flatten(2).all(dim=-1)
        together = relative_pose(ahead[:, :, None], ahead[:, None])
        both = linked[:, :, None] & linked[:, None]
        result[rows] = torch.where(both[..., None, None], together, result[rows])
        left[rows] = rest & ~linked
    return result


def _from_first(
    measured: Float[Tensor, "b n n 4 4"], weight: Float[Tensor, "b n n"], order: Int[Tensor, "b n"]
) -> Float[Tensor, "b n 4 4"]:
    """Poses of the agents in this order, in the frame of its first."""
    sample = torch.arange(len(order))[:, None, None]
    rows, columns = order[:, :, None], order[:, None]
    found = average_relative_poses(measured[sample, rows, columns][:, None], weight[sample, rows, columns][:, None])
    found[:, 0] = torch.eye(4, dtype=found.dtype)
    return found
