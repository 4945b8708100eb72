"""Coverage mask term."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from coopmap.losses.inputs import LossInputs


def mask_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Binary cross entropy of each view, over all pixels of the batch."""
    logits = inputs.prediction.mask_logits
    covered = inputs.target.non_ambiguous.to(logits.dtype)
    pos_weight = None
    if inputs.cfg.mask_pos_weight == "auto":
        share = covered.mean()
        pos_weight = ((1 - share) / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0.1, 10.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, covered, pos_weight=pos_weight, reduction="none")
    return entropy.mean(dim=(0, 2, 3))
