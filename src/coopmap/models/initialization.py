"""Initialization for training without released weights.

The public code's choices suit long runs from pretrained encoders. From scratch, content and position of a patch must
interact early and survive the pose head's mean over patches; then a small model learns in hundreds of steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.dinov2 import VisionTransformer
from coopmap.models.heads import PoseHead
from coopmap.models.info_sharing import AlternatingAttention
from coopmap.models.layers import Block, Mlp

POSITION_AMPLITUDE = 2.0
"""Amplitude of the sinusoidal position embedding; patches of a normalized image embed to about 0.6."""
RING_AMPLITUDE = 0.5
"""Amplitude of the columns' part on a ring: less, since what a panorama shows may be turned by any angle."""
POSE_OUTPUT_GAIN = 0.1
"""Gain of the pose head's last layers, so that an untrained model puts the views close together."""


def sincos_embedding(grid: int, dim: int) -> Float[Tensor, "cells dim"]:
    """Sines and cosines of column (first half of the channels) and row, cells row by row (He et al., MAE, 2022)."""
    frequencies = 10_000.0 ** -torch.linspace(0, 1, dim // 4 + 1)[:-1]
    angles = torch.arange(grid)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=-1)  # grid dim/2
    columns, rows = axis[None].expand(grid, -1, -1), axis[:, None].expand(-1, grid, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)


def ring_embedding(grid: int, dim: int) -> Float[Tensor, "cells dim"]:
    """Sines and cosines of 1, 2, 3, ... times the angle of each column's center on a ring; cells row by row.

    As many as there are columns, then zeros.
    """
    count = min(dim, grid) // 2
    turns = (torch.arange(grid) + 0.5) / grid
    angles = 2 * torch.pi * turns[:, None] * torch.arange(1, count + 1)
    columns = torch.zeros(grid, dim)
    columns[:, : 2 * count] = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return columns.repeat(grid, 1)


@torch.no_grad()
def initialize_from_scratch(
    encoder: VisionTransformer, info_sharing: AlternatingAttention, pose_head: PoseHead, ring: bool = False
) -> None:
    """Re-initialize the parts whose public initialization learns slowly.

    Xavier weights and sinusoidal positions in the encoder; residual branches of both transformers scaled down by their
    number (Radford et al., GPT-2, 2019); He weights in the pose head. On a ring, a panorama, the positions of columns
    are harmonics of the full turn.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    positions = sincos_embedding(encoder.grid, encoder.pos_embed.shape[-1])
    if ring:
        half = positions.shape[1] // 2
        positions[:, :half] = RING_AMPLITUDE / POSITION_AMPLITUDE * ring_embedding(encoder.grid, half)
    encoder.pos_embed[0, 1:] = POSITION_AMPLITUDE * positions
    blocks = [block for block in (*encoder.blocks, *info_sharing.self_attention_blocks) if isinstance(block, Block)]
    for block in blocks:
        last = block.mlp.fc2 if isinstance(block.mlp, Mlp) else block.mlp.w3
        for layer in (block.attn.proj, last):
            layer.weight.mul_((2 * len(blocks)) ** -0.5)
    for module in pose_head.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for output in (pose_head.fc_t, pose_head.fc_rot):
        nn.init.xavier_uniform_(output.weight, gain=POSE_OUTPUT_GAIN)
