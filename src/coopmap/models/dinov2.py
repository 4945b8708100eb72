"""DINOv2 vision transformer (Oquab et al., arXiv 2304.07193), weight-compatible with the official models."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.model import EncoderConfig
from coopmap.models.layers import Block, LayerNorm, run
from coopmap.models.rings import wrap

INTERPOLATION_OFFSET = 0.1
"""The official models resize position embeddings by a factor that aims at this much more than the target grid."""


class EncoderOutput(NamedTuple):
    """Features of images: one token per patch (row by row), and the class token with any register tokens."""

    patches: Float[Tensor, "*b n c"]
    extra_tokens: Float[Tensor, "*b t c"]


class PatchEmbed(nn.Module):
    """Linear embedding of non-overlapping square patches."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Embeddings row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """Tokens of patches from overlapping convolutions: each halves the resolution, two more look around.

    Args:
        dim: width of a token.
        patch_size: a power of 2.
        circular: pad left and right with the opposite edge.
    """

    def __init__(self, dim: int, patch_size: int, circular: bool) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 1
        widths = [max(dim >> (halvings - 1 - level), 16) for level in range(halvings)]
        layers: list[nn.Module] = []
        for before, width in zip([3, *widths], widths, strict=False):
            layers += _stem_layer(before, width, kernel_size=5 if before == 3 else 3, stride=2)
        self.layers = nn.Sequential(*layers, *_stem_layer(dim, dim), *_stem_layer(dim, dim))
        self.proj = nn.Conv2d(dim, dim, 1)
        for module in self.layers:
            if circular and isinstance(module, nn.Conv2d):
                wrap(module)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Embeddings row by row."""
        return self.proj(self.layers(images)).flatten(2).transpose(1, 2)


def _stem_layer(before: int, width: int, kernel_size: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, kernel_size, stride, padding=kernel_size // 2)
    return [convolution, nn.GroupNorm(8, width), nn.GELU()]


class VisionTransformer(nn.Module):
    """The vision transformer; ``forward`` returns all tokens, class token first, then registers, then patches."""

    def __init__(self, cfg: EncoderConfig, circular_stem: bool = False) -> None:
        super().__init__()
        self.grid = cfg.pos_embed_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, cfg.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, cfg.dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, cfg.num_registers, cfg.dim)) if cfg.num_registers else None
        self.patch_size = cfg.patch_size
        self.patch_embed = (
            PatchEmbed(cfg.dim, cfg.patch_size)
            if cfg.stem == "patch"
            else ConvStem(cfg.dim, cfg.patch_size, circular_stem)
        )
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.norm = LayerNorm(cfg.dim) if cfg.final_norm else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as the official code does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position_embedding(self, height: int, width: int) -> Float[Tensor, "1 n c"]:
        """Learned patch positions resized to ``height`` x ``width`` patches (bicubic, no antialiasing)."""
        patches = self.pos_embed[:, 1:]
        if (height, width) == (self.grid, self.grid):
            return patches
        scale = ((height + INTERPOLATION_OFFSET) / self.grid, (width + INTERPOLATION_OFFSET) / self.grid)
        cells = patches.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        return F.interpolate(cells, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)

    def leading_tokens(self) -> Float[Tensor, "1 t c"]:
        """Class token and registers as they enter the first block."""
        cls_token = self.cls_token + self.pos_embed[:, :1]
        return cls_token if self.register_tokens is None else torch.cat([cls_token, self.register_tokens], dim=1)

    def patch_grid(self, images: Float[Tensor, "*b h w"]) -> tuple[int, int]:
        """Rows and columns of patches."""
        return images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size

    def place(
        self, patches: Float[Tensor, "b n c"], grid: tuple[int, int], leading: Float[Tensor, "b t c"] | None = None
    ) -> Float[Tensor, "b t+n c"]:
        """Tokens of patch embeddings with their positions, after the leading tokens."""
        if leading is None:
            leading = self.leading_tokens().expand(len(patches), -1, -1)
        return torch.cat([leading, patches + self.position_embedding(*grid)], dim=1)

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t+n c"]:
        """Tokens that enter the first block."""
        return self.place(self.patch_embed(images), self.patch_grid(images))

    def run_blocks(
        self, tokens: Float[Tensor, "b t+n c"], first: int, last: int, checkpointing: bool = False
    ) -> Float[Tensor, "b t+n c"]:
        """Apply blocks ``first`` to ``last - 1``."""
        for block in self.blocks[first:last]:
            tokens = run(block, tokens, checkpointing=checkpointing)
        return tokens

    def resume(
        self, tokens: Float[Tensor, "b t+n c"], first: int, checkpointing: bool = False
    ) -> Float[Tensor, "b t+n c"]:
        """All tokens of the output, from those that enter block ``first``."""
        return self.norm(self.run_blocks(tokens, first, len(self.blocks), checkpointing))

    def forward(self, images: Float[Tensor, "b 3 h w"], checkpointing: bool = False) -> Float[Tensor, "b t+n c"]:
        """All tokens of RGB images normalized as for DINOv2, of whole patches in height and width."""
        return self.resume(self.embed(images), 0, checkpointing)


class DinoV2Encoder(nn.Module):
    """Image encoder: splits the transformer's output into patch tokens and the rest."""

    def __init__(self, cfg: EncoderConfig, checkpointing: bool = False, circular_stem: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.num_extra_tokens = 1 + cfg.num_registers
        self.model = VisionTransformer(cfg, circular_stem)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> EncoderOutput:
        """Features of RGB images normalized as for DINOv2, of whole patches in height and width."""
        return self._split(self.model(images, self.checkpointing))

    def resume(self, tokens: Float[Tensor, "b t+n c"], first_block: int) -> EncoderOutput:
        """Encode from the tokens that enter block ``first_block``."""
        return self._split(self.model.resume(tokens, first_block, self.checkpointing))

    def _split(self, tokens: Float[Tensor, "b t+n c"]) -> EncoderOutput:
        return EncoderOutput(tokens[:, self.num_extra_tokens :], tokens[:, : self.num_extra_tokens])
