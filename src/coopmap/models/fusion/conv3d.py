"""Fusion by a convolution over the cameras, before the patch embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.fusion import FusionConfig
from coopmap.models.dinov2 import PatchEmbed
from coopmap.models.fusion.base import ImageFusion
from coopmap.models.fusion.cameras import NUM_CAMERAS, Cameras
from coopmap.models.fusion.directions import ENCODING_DIM, camera_encoding
from coopmap.models.rings import wrap

SLOT_CHANNELS = 4


class Conv3dFusion(ImageFusion):
    """Corrects the winners' image by a convolution over all cameras and 3x3 pixels.

    A kernel (4, 3, 3) has only one position along the four cameras, so it is a 3x3 kernel over their stacked channels,
    which runs several times as fast. The correction is zero-initialized.
    """

    def __init__(self, cfg: FusionConfig) -> None:
        super().__init__()
        channels = 3
        self.slot = None
        if cfg.directions:
            self.slot = nn.Parameter(torch.randn(NUM_CAMERAS, SLOT_CHANNELS))
            channels += ENCODING_DIM + SLOT_CHANNELS
        self.over_cameras = wrap(nn.Conv2d(NUM_CAMERAS * channels, cfg.dim, 3, padding=1))
        self.output = wrap(nn.Conv2d(cfg.dim, 3, 3, padding=1))
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def embed(self, cameras: Cameras, patch_embed: PatchEmbed) -> Float[Tensor, "b n c"]:
        """See :meth:`ImageFusion.embed`."""
        winner = (cameras.images * cameras.winner[:, :, None]).sum(dim=1)
        return patch_embed(winner + self.output(F.gelu(self.over_cameras(self._channels(cameras)))))

    def _channels(self, cameras: Cameras) -> Float[Tensor, "b kc h w"]:
        """Colors, directions and slots, zero where a camera does not see."""
        seen = cameras.seen[:, :, None].to(cameras.images.dtype)  # b k 1 h w
        channels = [cameras.images * seen]
        if self.slot is not None:
            size = cameras.angle.shape[-2], cameras.angle.shape[-1]
            channels.append(camera_encoding(cameras, size).movedim(-1, 2) * seen)
            channels.append(self.slot[:, :, None, None] * seen)
        return torch.cat(channels, dim=2).flatten(1, 2)
