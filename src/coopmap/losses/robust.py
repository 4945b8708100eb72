"""How two quantities are compared."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def robust_loss(
    prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"], alpha: float, c: float
) -> Float[Tensor, "*b"]:
    """General robust loss of the distance between vectors (Barron, arXiv 1701.03077, eq. 1; 0 < alpha < 2)."""
    squared = ((prediction - truth) / c).square().sum(-1)
    return ((2 - alpha) / alpha) * ((squared / (2 - alpha) + 1).pow(alpha / 2) - 1)


def log_length(vector: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Replace the length of each vector by ``log(1 + length)``, keeping its direction (and sign, for one component)."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector / length.clamp(min=1e-8) * torch.log1p(length)
