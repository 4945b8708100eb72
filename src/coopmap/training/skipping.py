"""Which steps are skipped, and how many may be: those whose gradient is not finite or far above the usual one.

A NaN in the loss, the gradients or the data, an overflow and a spike are one thing here: a *skipped step*. It changes
no weight, is counted, leaves its batch for ``coopmap replay`` (:class:`coopmap.training.callbacks.SkippedSteps`), and
too many of them end the run.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.train import OptimConfig

MEAN_OVER = 100
"""Steps that the usual norm is about a mean over."""
KNOWN_AFTER = 20
"""Steps before which no norm is usual."""


class Skipping(nn.Module):
    """Judges gradients on the device, without a look at their values: all ranks have the same norm and so agree.

    Args:
        optim: ``spike``, the factor above the usual norm beyond which a step is skipped, and how many may be.

    Attributes:
        now: whether the last step was skipped.
        in_a_row: steps that were, up to the last one.
        count: steps that were, since the start of this process.
    """

    now: Tensor
    in_a_row: Tensor
    count: Tensor
    usual: Tensor
    taken: Tensor

    def __init__(self, optim: OptimConfig) -> None:
        super().__init__()
        self.optim = optim
        for name, start in (("now", False), ("in_a_row", 0), ("count", 0), ("usual", 0.0), ("taken", 0)):
            self.register_buffer(name, torch.tensor(start), persistent=False)

    def judge(self, norm: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether to skip the step with this norm of the gradient."""
        skipped = ~norm.isfinite()
        if self.optim.spike is not None:
            skipped = skipped | ((self.taken >= KNOWN_AFTER) & (norm > self.optim.spike * self.usual))
        self.now, self.count = skipped, self.count + skipped
        self.in_a_row = torch.where(skipped, self.in_a_row + 1, 0)
        self.taken = self.taken + ~skipped
        share = (1 / self.taken.clamp(min=1)).clamp(min=1 / MEAN_OVER)
        self.usual = torch.where(skipped, self.usual, torch.lerp(self.usual, norm.detach().float(), share))
        return skipped

    def spent(self) -> str | None:
        """Which of the two budgets is used up, in words. Waits for the device."""
        row, count = int(self.in_a_row), int(self.count)
        if row >= self.optim.max_nonfinite_steps:
            return f"for {row} steps"
        if count >= self.optim.max_skipped_steps:
            return f"for {count} steps in all (optim.max_skipped_steps)"
        return None
