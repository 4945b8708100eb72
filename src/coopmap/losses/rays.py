"""Ray term."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def ray_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Unit rays of all pixels: a ray is known where depth is not."""
    loss = robust_loss(inputs.prediction.rays, inputs.target.rays, inputs.cfg)
    return weighted_mean(loss, inputs.factor, dim=(0, 2, 3))
