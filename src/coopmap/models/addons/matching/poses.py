"""Relative poses of pairs of agents from matches, and one pose per view from them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.alignment import Alignment, align, ray_covariance
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.se3 import invert, pose_from_quat_trans, quat_trans_from_pose, relative_pose
from coopmap.models.addons.matching.matches import Correspondences
from coopmap.models.decoding import with_poses
from coopmap.types import Observation, Prediction

BEARING_SIGMA_CELLS = 0.2
"""Error of a match's direction, in cells; uniform over a part of a cell, it is 0.15."""
LEAST_CONFIDENCE = 1e-3


def align_pairs(
    found: Correspondences,
    range_sigma: Float[Tensor, "b a c"],
    cell_angle: Float[Tensor, ""],
    tilt_sigma_deg: float | None,
) -> Alignment:
    """Relative pose ``T_i_j`` of each pair.

    Args:
        found: matches.
        range_sigma: relative error of the predicted range of each agent's cells.
        cell_angle: between neighboring cells, radians.
        tilt_sigma_deg: of roll and pitch of ``T_i_j``.
    """
    agents = range_sigma.shape[1]
    ends = torch.triu_indices(agents, agents, offset=1, device=range_sigma.device)
    bearing_sigma = BEARING_SIGMA_CELLS * cell_angle
    covariance_i, covariance_j = (
        ray_covariance(points, range_sigma[:, end].gather(2, found.cells[..., side]), bearing_sigma)
        for side, (end, points) in enumerate(zip(ends, (found.points_i, found.points_j), strict=True))
    )
    tilt_sigma = None if tilt_sigma_deg is None else math.radians(tilt_sigma_deg)
    return align(found.points_i, found.points_j, found.weight, covariance_i, covariance_j, tilt_sigma)


def with_aligned_poses(prediction: Prediction, observation: Observation, views: int, pose_from: str) -> Prediction:
    """The prediction with poses averaged over all pairs; the regressed ones where no pair determines any.

    Args:
        prediction: with ``matches``.
        observation: with the rig, where views are cameras.
        views: number of an agent's views.
        pose_from: ``alignment``, or ``both``: regressed poses count by what the aligned ones lack in confidence.
    """
    regressed = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans).double()
    rig = None if observation.rig_pose is None else observation.rig_pose.double()
    first_of_agent = regressed[:, ::views] if rig is None else regressed[:, ::views] @ invert(rig[:, ::views])
    measured, weight = _aligned(prediction, first_of_agent.shape[1])
    if pose_from == "both":
        from_head = relative_pose(first_of_agent[:, :, None], first_of_agent[:, None])
        rest = torch.ones_like(weight).triu(1) - weight
        measured, weight = torch.stack([measured, from_head], dim=1), torch.stack([weight, rest], dim=1)
    else:
        measured, weight = measured[:, None], weight[:, None]
    agents = average_relative_poses(measured, weight)
    fallback = relative_pose(first_of_agent[:, :1], first_of_agent)
    agents = torch.where(agents.isfinite().flatten(-2).all(dim=-1)[..., None, None], agents, fallback)
    pose = agents.repeat_interleave(views, dim=1)
    if rig is not None:
        pose = invert(rig[:, :1]) @ pose @ rig
    quat, trans = quat_trans_from_pose(pose.to(prediction.pose_trans))
    return with_poses(prediction, quat, trans)


def _aligned(prediction: Prediction, agents: int) -> tuple[Float[Tensor, "b a a 4 4"], Float[Tensor, "b a a"]]:
    """``T_i_j`` of all pairs ``i < j`` as matrices over agents, and their confidence; 0 where there is none."""
    matches = prediction.matches
    assert matches is not None
    batch, device = len(matches.pose), matches.pose.device
    first, second = torch.triu_indices(agents, agents, offset=1, device=device)
    pose = torch.eye(4, dtype=torch.float64, device=device).repeat(batch, agents, agents, 1, 1)
    weight = torch.zeros(batch, agents, agents, dtype=torch.float64, device=device)
    pose[:, first, second] = matches.pose.double()
    usable = ~matches.degenerate & matches.pose.isfinite().flatten(-2).all(dim=-1)
    confidence = matches.confidence_logit.double().sigmoid().clamp(LEAST_CONFIDENCE, 1 - LEAST_CONFIDENCE)
    weight[:, first, second] = torch.where(usable, confidence, 0.0)
    return pose, weight
