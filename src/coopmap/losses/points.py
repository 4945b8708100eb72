"""Point terms: in view 0's frame and in each view's own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.robust import robust_log_loss


def world_point_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Points in view 0's frame, log space: everything at once, rays, depth and poses."""
    return robust_log_loss(inputs.pair.prediction.points_world, inputs.pair.truth.points_world, inputs.cfg)


def view_point_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Points in their own view's frame, log space."""
    return robust_log_loss(inputs.pair.prediction.points_view, inputs.pair.truth.points_view, inputs.cfg)
