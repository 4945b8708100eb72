"""DINOv2 vision transformer (Oquab et al., arXiv 2304.07193), weight-compatible with the official models."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.model import EncoderConfig
from coopmap.models.layers import Block, LayerNorm, run

INTERPOLATION_OFFSET = 0.1
"""The official models resize position embeddings by a factor that aims at this much more than the wanted grid."""


class EncoderOutput(NamedTuple):
    """Features of ``b`` images: one token per patch (row by row), and the class token with any register tokens."""

    patches: Float[Tensor, "b n c"]
    extra_tokens: Float[Tensor, "b t c"]


class PatchEmbed(nn.Module):
    """Linear embedding of non-overlapping square patches."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The vision transformer; ``forward`` returns all tokens, class token first, then registers, then patches."""

    def __init__(self, cfg: EncoderConfig) -> None:
        super().__init__()
        self.grid = cfg.pos_embed_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, cfg.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, cfg.dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, cfg.num_registers, cfg.dim)) if cfg.num_registers else None
        self.patch_embed = PatchEmbed(cfg.dim, cfg.patch_size)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.norm = LayerNorm(cfg.dim) if cfg.final_norm else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the official code does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position_embedding(self, height: int, width: int) -> Float[Tensor, "1 n c"]:
        """Learnt patch positions resized to ``height`` x ``width`` patches (bicubic, no antialiasing)."""
        patches = self.pos_embed[:, 1:]
        if (height, width) == (self.grid, self.grid):
            return patches
        scale = ((height + INTERPOLATION_OFFSET) / self.grid, (width + INTERPOLATION_OFFSET) / self.grid)
        cells = patches.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        return F.interpolate(cells, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t+n c"]:
        """Tokens that enter the first block."""
        patch_size = self.patch_embed.proj.kernel_size[0]
        height, width = images.shape[-2] // patch_size, images.shape[-1] // patch_size
        patches = self.patch_embed(images) + self.position_embedding(height, width)
        leading = [self.cls_token + self.pos_embed[:, :1]]
        if self.register_tokens is not None:
            leading.append(self.register_tokens)
        return torch.cat([*(token.expand(len(images), -1, -1) for token in leading), patches], dim=1)

    def forward(self, images: Float[Tensor, "b 3 h w"], checkpointing: bool = False) -> Float[Tensor, "b t+n c"]:
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = run(block, tokens, checkpointing=checkpointing)
        return self.norm(tokens)


class DinoV2Encoder(nn.Module):
    """Image encoder: splits the transformer's output into patch tokens and the rest."""

    def __init__(self, cfg: EncoderConfig, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.num_extra_tokens = 1 + cfg.num_registers
        self.model = VisionTransformer(cfg)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> EncoderOutput:
        tokens = self.model(images, self.checkpointing)
        return EncoderOutput(tokens[:, self.num_extra_tokens :], tokens[:, : self.num_extra_tokens])
