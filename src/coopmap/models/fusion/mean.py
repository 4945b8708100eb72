"""Fusion by averaging."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.config.fusion import FusionConfig
from coopmap.models.fusion.base import FeatureFusion
from coopmap.models.fusion.cameras import Cameras, combine, resample
from coopmap.models.fusion.directions import DirectionEmbedding


class MeanFusion(FeatureFusion):
    """Mean over the cameras that see a cell, plus zero-initialized features of their directions."""

    def __init__(self, cfg: FusionConfig, dim: int) -> None:
        super().__init__(cfg.shared_blocks)
        self.directions = DirectionEmbedding(dim, std=0) if cfg.directions else None

    def fuse(self, maps: Float[Tensor, "b k c h w"], cameras: Cameras) -> Float[Tensor, "b n c"]:
        """See :meth:`FeatureFusion.fuse`."""
        assert cameras.grid is not None
        fused = combine(resample(maps, cameras.grid), cameras.share)
        return fused if self.directions is None else fused + self.directions.mean(cameras, cameras.share)
