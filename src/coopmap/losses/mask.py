"""Coverage mask term."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from coopmap.config.loss import LossConfig


def mask_loss(
    logits: Float[Tensor, "b v h w"], non_ambiguous: Bool[Tensor, "b v h w"], cfg: LossConfig
) -> Float[Tensor, " v"]:
    """Binary cross entropy of each view, over all pixels of the batch."""
    covered = non_ambiguous.to(logits.dtype)
    pos_weight = None
    if cfg.mask_pos_weight == "auto":
        share = covered.mean()
        pos_weight = ((1 - share) / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0.1, 10.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, covered, pos_weight=pos_weight, reduction="none")
    return entropy.mean(dim=(0, 2, 3))
