"""Fusion by attention from the panorama's patches to the cameras."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.fusion import FusionConfig
from coopmap.models.fusion.base import FeatureFusion
from coopmap.models.fusion.cameras import Cameras, combine, resample
from coopmap.models.fusion.directions import DirectionEmbedding, cell_rays, encode_directions
from coopmap.models.layers import LayerNorm


class CrossAttentionFusion(FeatureFusion):
    """Corrects the winner's features by attention of each cell to the cameras that see it.

    Keys and values are features of the camera patches around what the cell shows there, resampled. The correction is
    zero-initialized.
    """

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__(cfg.shared_blocks)
        self.num_heads = cfg.num_heads
        self.radius = cfg.radius
        self.query_norm, self.key_norm = LayerNorm(dim), LayerNorm(dim)
        self.query = nn.Linear(dim, cfg.dim)
        self.key_value = nn.Linear(dim, 2 * cfg.dim)
        self.directions = self.cell_directions = self.neighbors = None
        if cfg.directions:
            self.cell_directions = nn.Linear(4, cfg.dim, bias=False)
            self.directions = DirectionEmbedding(2 * cfg.dim)
        if cfg.radius:
            self.neighbors = nn.Parameter(0.02 * torch.randn((2 * cfg.radius + 1) ** 2, 2 * cfg.dim))
        self.output = nn.Linear(cfg.dim, dim)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def fuse(self, maps: Float[Tensor, "b k c h w"], cameras: Cameras) -> Float[Tensor, "b n c"]:
        """See :meth:`FeatureFusion.fuse`."""
        assert cameras.grid is not None
        winner = combine(resample(maps, cameras.grid), cameras.winner)
        query = self.query(self.query_norm(winner))
        if self.cell_directions is not None:
            rays = cell_rays(cameras, (cameras.angle.shape[-2], cameras.angle.shape[-1]))
            query = query + self.cell_directions(encode_directions(rays).flatten(1, 2))
        key_value, seen = self._keys_and_values(maps, cameras)
        return winner + self.output(self._attend(query, key_value, seen))

    def _keys_and_values(
        self, maps: Float[Tensor, "b k c h w"], cameras: Cameras
    ) -> tuple[Float[Tensor, "b s n 2d"], Bool[Tensor, "b s n"]]:
        """Keys beside values of all cameras and neighbors, and which of them a cell may attend to."""
        assert cameras.grid is not None
        projected = self.key_value(self.key_norm(maps.movedim(2, -1))).movedim(-1, 2)
        steps = torch.arange(-self.radius, self.radius + 1, device=maps.device)
        offsets = torch.cartesian_prod(steps * (2 / maps.shape[-2]), steps * (2 / maps.shape[-1])).flip(-1)  # t (x, y)
        grid = cameras.grid[:, :, None] + offsets[:, None, None]  # b k t gh gw 2
        inside = (grid.abs() <= 1).all(dim=-1) | (offsets == 0).all(dim=-1)[:, None, None]
        seen = cameras.seen[:, :, None] & inside
        # the neighbors of a camera are sampled as one tall grid
        key_value = resample(projected, grid.flatten(2, 3)).unflatten(2, (len(offsets), -1))  # b k t n 2d
        if self.directions is not None:
            key_value = key_value + self.directions(cameras)[:, :, None]
        if self.neighbors is not None:
            key_value = key_value + self.neighbors[:, None]
        return key_value.flatten(1, 2), seen.flatten(1, 2).flatten(2)

    def _attend(
        self, query: Float[Tensor, "b n d"], key_value: Float[Tensor, "b s n 2d"], seen: Bool[Tensor, "b s n"]
    ) -> Float[Tensor, "b n d"]:
        """Softmax over the cameras and neighbors of each cell; cells without any attend to all, and are not used."""
        query = query.unflatten(-1, (self.num_heads, -1))
        key, value = key_value.unflatten(-1, (2, self.num_heads, -1)).unbind(dim=3)
        scores = torch.einsum("bnhe,bsnhe->bnhs", query, key).float() / math.sqrt(query.shape[-1])
        allowed = (seen | ~seen.any(dim=1, keepdim=True)).transpose(1, 2)[:, :, None]
        weights = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)
        return torch.einsum("bnhs,bsnhe->bnhe", weights, value).flatten(2)
