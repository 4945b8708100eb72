"""Gradients under float16's loss scale (``trainer.precision=16-mixed``), for fused optimizers.

These divide by the scale within their step, and Lightning leaves it to them. Norms taken before, for clipping, spikes
and logs, would be of scaled gradients; and what a scaler finds takes the place of a ``found_inf`` that was there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer


def unscale(optimizer: Optimizer, scaler: GradScaler | None) -> None:
    """Divide the gradients by the loss scale, if nobody has."""
    if scaler is not None and _unscales_in_its_step(optimizer):
        scaler.unscale_(optimizer)


def skip_if(skipped: Float[Tensor, ""], optimizer: Optimizer, scaler: GradScaler | None) -> None:
    """Have the optimizer's next step change nothing where ``skipped`` is 1, or where the scaler found an overflow."""
    optimizer.found_inf = skipped  # type: ignore[attr-defined]  # read by fused optimizers
    if scaler is not None and _unscales_in_its_step(optimizer):
        for found in scaler._found_inf_per_device(optimizer).values():
            found.copy_(torch.maximum(found, skipped.to(found.device)))


def _unscales_in_its_step(optimizer: Optimizer) -> bool:
    return getattr(optimizer, "_step_supports_amp_scaling", False)
