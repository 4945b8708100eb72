"""Scale distillation: keep a frozen teacher's sense of metric scale."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.inputs import LossInputs
from coopmap.losses.robust import robust_loss


def scale_distillation_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Difference to the teacher of the logarithm of the metric scale, mean over all samples, metric or not."""
    assert inputs.teacher is not None
    student, teacher = (side.scale.clamp(min=1e-8).log() for side in (inputs.prediction, inputs.teacher))
    return robust_loss(student[:, None], teacher.detach().to(student)[:, None], inputs.cfg).mean()
