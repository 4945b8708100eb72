"""Depth term."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.robust import robust_log_loss

LOG_NAMES = {"ray": "depth_along_ray", "z": "depth_z"}


def depth_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Range along the ray, or the forward coordinate, log space."""
    prediction, truth = inputs.pair.prediction, inputs.pair.truth
    if inputs.cfg.depth == "ray":
        return robust_log_loss(prediction.depth[..., None], truth.depth[..., None], inputs.cfg)
    return robust_log_loss(prediction.points_view[..., 2:], truth.points_view[..., 2:], inputs.cfg)
