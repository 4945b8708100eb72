"""Multi-view transformer: alternating attention over all views and within each view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.model import InfoSharingConfig
from coopmap.models.layers import Block, LayerNorm, run


class AlternatingAttention(nn.Module):
    """Blocks 0, 2, ... attend over the tokens of all views and the scale token, blocks 1, 3, ... within each view.

    Only view 0, the reference, is marked, or no view at all (``cfg.mark_reference``); the others are interchangeable
    (UniCeption ``MultiViewAlternatingAttentionTransformerIFR``, ``distinguish_ref_and_non_ref_views``).
    """

    view_pos_table: Tensor | None

    def __init__(self, cfg: InfoSharingConfig, input_dim: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.proj_embed = nn.Identity() if input_dim == cfg.dim else nn.Linear(input_dim, cfg.dim)
        self.self_attention_blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.depth))
        self.norm = LayerNorm(cfg.dim)
        # The sinusoidal encoding of index 0: sin 0, cos 0, sin 0, ... It is part of released weights.
        mark = torch.tensor([[0.0, 1.0]]).repeat(1, cfg.dim // 2)
        self.register_buffer("view_pos_table", mark if cfg.mark_reference else None)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        patches: Float[Tensor, "b v n d"],
        extra_tokens: Float[Tensor, "b v t d"] | None,
        scale_token: Float[Tensor, "b 1 d"],
        layers: Sequence[int],
    ) -> tuple[list[Float[Tensor, "b v n c"]], Float[Tensor, "b c"]]:
        """Share information between views.

        Returns:
            Normalized patch tokens after each of the blocks ``layers``, and the normalized scale token.
        """
        batch, num_views, num_patches = patches.shape[:3]
        views = patches if extra_tokens is None else torch.cat([patches, extra_tokens], dim=2)
        num_tokens = views.shape[2]
        # The sum of all blocks is kept in float32 under autocast, with the mark of the reference view or without.
        views, scale = self.proj_embed(views).float(), self.proj_embed(scale_token).float()
        if self.view_pos_table is not None:
            views = views + F.pad(self.view_pos_table[:, None], (0, 0, 0, 0, 0, num_views - 1))  # zero but for view 0
        after = {}
        for index, block in enumerate(self.self_attention_blocks):
            if index % 2 == 0:
                tokens = torch.cat([views.flatten(1, 2), scale], dim=1)
                tokens = run(block, tokens, checkpointing=self.checkpointing)
                views, scale = tokens[:, :-1].unflatten(1, (num_views, num_tokens)), tokens[:, -1:]
            else:
                views = run(block, views.flatten(0, 1), checkpointing=self.checkpointing).unflatten(
                    0, (batch, num_views)
                )
            if index in layers:
                after[index] = views[:, :, :num_patches]
        return [self.norm(after[layer]) for layer in layers], self.norm(scale[:, 0])
