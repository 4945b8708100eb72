"""Transformer blocks shared by the encoder and the multi-view transformer.

Attribute names are those of DINOv2 and UniCeption, so that their weights load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coopmap.config.model import TransformerConfig

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


def run(module: Callable[..., Any], *inputs: Any, checkpointing: bool) -> Any:
    """Call ``module``; with ``checkpointing`` its activations are recomputed in the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


class LayerScale(nn.Module):
    """Learned factor per channel on a residual branch."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """The branch, scaled."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernels."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Each token after all of them were looked at; tokens attend to those of their own row of the batch."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # b n 3 heads c/heads
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """Each token on its own."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Gated feed-forward layer of DINOv2 ViT-g: two thirds of the hidden width, rounded up to a multiple of 8."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        gated_dim = (int(hidden_dim * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * gated_dim)
        self.w3 = nn.Linear(gated_dim, dim)

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c"]:
        """Each token on its own."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Pre-norm transformer block with optional LayerScale."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(cfg.dim)
        self.attn = Attention(cfg.dim, cfg.num_heads)
        self.ls1 = nn.Identity() if cfg.layer_scale is None else LayerScale(cfg.dim, cfg.layer_scale)
        self.norm2 = LayerNorm(cfg.dim)
        hidden_dim = int(cfg.dim * cfg.mlp_ratio)
        self.mlp: Mlp | SwiGLU = Mlp(cfg.dim, hidden_dim) if cfg.mlp == "gelu" else SwiGLU(cfg.dim, hidden_dim)
        self.ls2 = nn.Identity() if cfg.layer_scale is None else LayerScale(cfg.dim, cfg.layer_scale)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """The tokens plus what attention and feed-forward layer add."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))
