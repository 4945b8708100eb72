"""Scale term."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_log_loss


def scale_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Mean point distance in meters, log space: mean over metric samples, 0 when there is none.

    The one term that teaches the metric scale, and it teaches nothing else: the distance is that of detached geometry.
    """
    pair = inputs.pair
    loss = robust_log_loss(pair.predicted_distance_m[:, None], pair.true_distance_m[:, None], inputs.cfg)
    return weighted_mean(loss, pair.has_metric_distance.to(loss), dim=0)
