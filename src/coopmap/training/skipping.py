"""Which steps are skipped: those whose gradient is not finite or far above the usual one."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

MEAN_OVER = 100
"""Steps that the usual norm is about a mean over."""
KNOWN_AFTER = 20
"""Steps before which no norm is usual."""


class Skipping(nn.Module):
    """Judges gradients on the device, without a look at their values: all ranks have the same norm and so agree.

    Args:
        spike: factor above the usual norm beyond which a step is skipped; ``None`` = only what is not finite.

    Attributes:
        now: whether the last step was skipped.
        count: steps that were, since the start of this process.
    """

    now: Tensor
    count: Tensor
    usual: Tensor
    taken: Tensor

    def __init__(self, spike: float | None) -> None:
        super().__init__()
        self.spike = spike
        for name, start in (("now", False), ("count", 0), ("usual", 0.0), ("taken", 0)):
            self.register_buffer(name, torch.tensor(start), persistent=False)

    def judge(self, norm: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether to skip the step with this norm of the gradient."""
        skipped = ~norm.isfinite()
        if self.spike is not None:
            skipped = skipped | ((self.taken >= KNOWN_AFTER) & (norm > self.spike * self.usual))
        self.now, self.count = skipped, self.count + skipped
        self.taken = self.taken + ~skipped
        share = (1 / (self.taken + 1)).clamp(min=1 / MEAN_OVER)
        self.usual = torch.where(skipped, self.usual, torch.lerp(self.usual, norm.detach().float(), share))
        return skipped
