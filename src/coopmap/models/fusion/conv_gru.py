"""Fusion by a recurrent unit over the cameras."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.fusion import FusionConfig
from coopmap.models.fusion.base import FeatureFusion
from coopmap.models.fusion.cameras import NUM_CAMERAS, Cameras, combine, resample
from coopmap.models.fusion.directions import DirectionEmbedding
from coopmap.models.layers import LayerNorm
from coopmap.models.rings import wrap


class ConvGRUFusion(FeatureFusion):
    """Corrects the winner's features by the state of a convolutional GRU (Ballas et al., arXiv 1511.06432).

    The state lives on the panorama's patches and is updated camera by camera, in slot order, where the camera sees.
    The correction is zero-initialized.
    """

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__(cfg.shared_blocks)
        self.norm = LayerNorm(dim)
        self.project = nn.Linear(dim, cfg.dim)
        self.directions = DirectionEmbedding(cfg.dim) if cfg.directions else None
        self.gates = wrap(nn.Conv2d(2 * cfg.dim, 2 * cfg.dim, 3, padding=1))
        self.candidate = wrap(nn.Conv2d(2 * cfg.dim, cfg.dim, 3, padding=1))
        self.output = nn.Linear(cfg.dim, dim, bias=False)
        nn.init.zeros_(self.output.weight)

    def fuse(self, maps: Float[Tensor, "b k c h w"], cameras: Cameras) -> Float[Tensor, "b n c"]:
        """See :meth:`FeatureFusion.fuse`."""
        assert cameras.grid is not None
        winner = combine(resample(maps, cameras.grid), cameras.winner)
        projected = self.project(self.norm(maps.movedim(2, -1))).movedim(-1, 2)
        inputs = resample(projected, cameras.grid)
        if self.directions is not None:
            inputs = inputs + self.directions(cameras)
        seen = cameras.seen[:, :, None]
        inputs = inputs.transpose(2, 3).unflatten(3, cameras.angle.shape[-2:]) * seen
        state = torch.zeros_like(inputs[:, 0])
        for slot in range(NUM_CAMERAS):
            state = self._update(state, inputs[:, slot], seen[:, slot])
        return winner + self.output(state.flatten(2).transpose(1, 2))

    def _update(
        self, state: Float[Tensor, "b c h w"], inputs: Float[Tensor, "b c h w"], seen: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b c h w"]:
        update, reset = self.gates(torch.cat([inputs, state], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([inputs, reset * state], dim=1)).tanh()
        return torch.where(seen, state + update * (candidate - state), state)
