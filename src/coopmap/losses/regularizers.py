"""Terms beyond the published ones: rig consistency, height prior, and scale distillation from a frozen teacher."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry import quat_trans_from_pose
from coopmap.losses.inputs import LossInputs
from coopmap.losses.normalized import metric_unit
from coopmap.losses.pose import pairwise_quats, pairwise_trans
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def rig_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Robust error of the relative poses of views on one agent: meters (metric samples) plus radians.

    Averaged over samples and partners; views without a partner score 0. Both calibration and prediction are in meters,
    so the baselines of the rig also supervise the metric scale.
    """
    prediction, target, cfg = inputs.prediction, inputs.target, inputs.cfg
    assert target.agent is not None
    assert target.rig_pose is not None
    quat, trans = quat_trans_from_pose(target.rig_pose)
    partners = same_car(target.agent).to(prediction.pose_trans)

    predicted_trans = pairwise_trans(prediction.pose_quat, prediction.pose_trans)
    meters = robust_loss(predicted_trans, pairwise_trans(quat, trans), cfg)
    angle = angle_between_quats(pairwise_quats(prediction.pose_quat), pairwise_quats(quat))
    radians = robust_loss(angle[..., None], torch.zeros_like(angle)[..., None], cfg)
    return weighted_mean(meters, partners * target.is_metric[:, None, None], dim=(0, 2)) + weighted_mean(
        radians, partners, dim=(0, 2)
    )


def has_partner(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views that share their agent with another."""
    assert inputs.target.agent is not None
    return same_car(inputs.target.agent).sum(dim=2) > 0


def same_car(agent: Int[Tensor, "b v"]) -> Bool[Tensor, "b v v"]:
    """Pairs of different views that belong to one agent."""
    itself = torch.eye(agent.shape[1], dtype=torch.bool, device=agent.device)
    return (agent[:, :, None] == agent[:, None]) & ~itself


def angle_between_quats(a: Float[Tensor, "*b 4"], b: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Angle in [0, pi] between two rotations; quaternions ``(x, y, z, w)`` need not be exactly unit.

    Unlike ``acos``, accurate at both ends, and without an infinite gradient at zero.
    """
    difference = roma.quat_product(roma.quat_inverse(a), b)
    return 2 * torch.atan2(torch.linalg.vector_norm(difference[..., :3], dim=-1), difference[..., 3].abs())


def height_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Robust loss of the meters by which predicted points lie below the road or above the ceiling, per view.

    Mean over the pixels that some camera covers and whose depth is unknown, metric samples only. The metric scale gets
    no gradient: shrinking the scene would lift every point above the road.
    """
    cfg, target, prediction = inputs.cfg.height, inputs.target, inputs.prediction
    assert target.ground_height_m is not None
    points = prediction.points_view / metric_unit(prediction)[..., None, None, None]
    excess = height_excess(points, target.rig_pose, target.ground_height_m, cfg.slope, cfg.ceiling_m)[..., None]
    loss = robust_loss(excess, torch.zeros_like(excess), inputs.cfg)
    return weighted_mean(loss, _unknown_depth(inputs), dim=(0, 2, 3))


def has_unknown_depth(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views that :func:`height_loss` measures."""
    return _unknown_depth(inputs).sum(dim=(2, 3)) > 0


def _unknown_depth(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    target = inputs.target
    return (target.non_ambiguous & ~target.valid & target.is_metric[:, None, None, None]).float()


def height_excess(
    points_view: Float[Tensor, "b v h w 3"],
    rig_pose: Float[Tensor, "b v 4 4"] | None,
    ground_height_m: Float[Tensor, "b v"],
    slope: float,
    ceiling_m: float | None,
) -> Float[Tensor, "b v h w"]:
    """Meters below the lowest plausible road, or above the ceiling; 0 in between.

    The agent's frame has y down and its origin ``ground_height_m`` above the road, which may descend by ``slope``
    (meters per meter of horizontal distance). Without ``rig_pose`` views are in the agent's frame.
    """
    if rig_pose is not None:
        rotation, trans = rig_pose[..., None, :3, :3], rig_pose[..., None, None, :3, 3]
        points_view = points_view @ rotation.transpose(-1, -2) + trans
    distance = torch.linalg.vector_norm(points_view[..., ::2], dim=-1)
    down = points_view[..., 1]
    excess = (down - ground_height_m[..., None, None] - slope * distance).clamp(min=0)
    if ceiling_m is not None:
        excess = excess + (-down - ceiling_m).clamp(min=0)
    return excess


def scale_distillation_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Difference between the logarithms of the metric scale and the teacher's, mean over all samples, metric or not."""
    assert inputs.teacher is not None
    student, teacher = (side.scale.clamp(min=1e-8).log() for side in (inputs.prediction, inputs.teacher))
    return robust_loss(student[:, None], teacher.detach().to(student)[:, None], inputs.cfg).mean()
