"""Fusion by a patch embedding that takes all cameras at once."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.fusion import FusionConfig
from coopmap.models.dinov2 import PatchEmbed
from coopmap.models.fusion.base import ImageFusion
from coopmap.models.fusion.cameras import NUM_CAMERAS, Cameras
from coopmap.models.fusion.directions import DirectionEmbedding


class ConcatFusion(ImageFusion):
    """Four warped images as 12 channels into a widened patch embedding.

    Each image is scaled by 4 over the number of cameras that see the pixel, so that the mean of the four is the mean
    over those that see it. The widened embedding is kept as its 3-channel original, copied to every camera and divided
    by 4, plus a zero-initialized difference: any 12-channel embedding can be written this way, and weights always
    keep their names and shapes.
    """

    def __init__(self, cfg: FusionConfig, dim: int, patch_size: int) -> None:
        super().__init__()
        self.difference = nn.Conv2d(3 * NUM_CAMERAS, dim, patch_size, stride=patch_size, bias=False)
        nn.init.zeros_(self.difference.weight)
        self.directions = DirectionEmbedding(dim, std=0) if cfg.directions else None

    def embed(self, cameras: Cameras, patch_embed: PatchEmbed) -> Float[Tensor, "b n c"]:
        """See :meth:`ImageFusion.embed`."""
        shares = cameras.images * cameras.share[:, :, None]
        difference = self.difference(NUM_CAMERAS * shares.flatten(1, 2))
        patches = patch_embed(shares.sum(dim=1)) + difference.flatten(2).transpose(1, 2)
        if self.directions is None:
            return patches
        return patches + self.directions.mean(cameras, F.avg_pool2d(cameras.share, self.difference.stride))
