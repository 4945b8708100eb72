"""How two quantities are compared."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.config.loss import LossConfig


def robust_loss(
    prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """General robust loss of the distance between vectors (Barron, arXiv 1701.03077, eq. 1; 0 < alpha < 2)."""
    alpha = cfg.robust_alpha
    squared = ((prediction - truth) / cfg.robust_c).square().sum(-1)
    return ((2 - alpha) / alpha) * ((squared / (2 - alpha) + 1).pow(alpha / 2) - 1)


def robust_log_loss(
    prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """The same in log space: near and far errors of the same proportion have the same weight."""
    return robust_loss(log_length(prediction), log_length(truth), cfg)


def log_length(vector: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Replace the length of each vector by ``log(1 + length)``, keeping its direction (and sign, for one component)."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector * (torch.log1p(length) / length.clamp(min=1e-8))
