"""Rig consistency: the cameras of one car keep their calibrated relative pose."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry import quat_trans_from_pose
from coopmap.losses.inputs import LossInputs
from coopmap.losses.pose import pairwise_quats, pairwise_trans
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def rig_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Robust error of the relative poses of views on one car: meters (metric samples) plus radians.

    Averaged over samples and partners; views without a partner score 0. Both calibration and prediction are in meters,
    so the baselines of the rig also speak to the metric scale.
    """
    prediction, target, cfg = inputs.prediction, inputs.target, inputs.cfg
    assert target.agent is not None
    assert target.rig_pose is not None
    quat, trans = quat_trans_from_pose(target.rig_pose)
    partners = same_car(target.agent).to(prediction.pose_trans)

    predicted_trans = pairwise_trans(prediction.pose_quat, prediction.pose_trans)
    meters = robust_loss(predicted_trans, pairwise_trans(quat, trans), cfg)
    angle = angle_between(pairwise_quats(prediction.pose_quat), pairwise_quats(quat))
    radians = robust_loss(angle[..., None], torch.zeros_like(angle)[..., None], cfg)
    return weighted_mean(meters, partners * target.is_metric[:, None, None], dim=(0, 2)) + weighted_mean(
        radians, partners, dim=(0, 2)
    )


def same_car(agent: Int[Tensor, "b v"]) -> Bool[Tensor, "b v v"]:
    """Pairs of different views that belong to one car."""
    itself = torch.eye(agent.shape[1], dtype=torch.bool, device=agent.device)
    return (agent[:, :, None] == agent[:, None]) & ~itself


def angle_between(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Angle in [0, pi] between two rotations; quaternions ``(x, y, z, w)`` need not be exactly unit.

    Unlike ``acos``, accurate at both ends, and without an infinite gradient at zero.
    """
    difference = roma.quat_product(roma.quat_inverse(a), b)
    return 2 * torch.atan2(torch.linalg.vector_norm(difference[..., :3], dim=-1), difference[..., 3].abs())
