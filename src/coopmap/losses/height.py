"""Height prior: what has no known depth still lies between road and ceiling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.normalized import metric_unit
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def height_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Robust meters by which predicted points lie below the road or above the ceiling, per view.

    Mean over the pixels that some camera covers and whose depth is unknown, metric samples only. The metric scale gets
    no gradient: shrinking the scene would lift every point above the road.
    """
    cfg, target, prediction = inputs.cfg.height, inputs.target, inputs.prediction
    points = prediction.points_view / metric_unit(prediction)[..., None, None, None]
    excess = height_excess(points, target.rig_pose, cfg.ground_m, cfg.slope, cfg.ceiling_m)[..., None]
    loss = robust_loss(excess, torch.zeros_like(excess), inputs.cfg)
    counted = target.non_ambiguous & ~target.valid & target.is_metric[:, None, None, None]
    return weighted_mean(loss, counted * inputs.factor, dim=(0, 2, 3))


def height_excess(
    points_view: Float[Tensor, "b v h w 3"],
    rig_pose: Float[Tensor, "b v 4 4"] | None,
    ground_m: float,
    slope: float,
    ceiling_m: float | None,
) -> Float[Tensor, "b v h w"]:
    """Meters below the lowest plausible road, or above the ceiling; 0 in between.

    The car's frame has y down and its origin ``ground_m`` above the road, which may fall away by ``slope`` (meters per
    meter of horizontal distance). Without ``rig_pose`` views are in the car's frame.
    """
    if rig_pose is not None:
        rotation, trans = rig_pose[..., None, :3, :3], rig_pose[..., None, None, :3, 3]
        points_view = points_view @ rotation.transpose(-1, -2) + trans
    distance = torch.linalg.vector_norm(points_view[..., ::2], dim=-1)
    down = points_view[..., 1]
    excess = (down - ground_m - slope * distance).clamp(min=0)
    if ceiling_m is not None:
        excess = excess + (-down - ceiling_m).clamp(min=0)
    return excess
