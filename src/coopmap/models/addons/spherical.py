"""Viewing direction of each patch on the sphere, as a feature of the patch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from coopmap.models.addons.base import PatchFeature
from coopmap.types import Observation

HARMONICS = 4
"""Multiples of azimuth and elevation up to this one: 90 degrees of azimuth per period, the width of a camera."""
NUM_FEATURES = 3 + 4 * HARMONICS


def direction_features(directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b f"]:
    """Unit vector, and sines and cosines of multiples of azimuth and elevation.

    All are continuous around the horizon, including the +-180 degree seam.
    """
    x, y, z = directions.unbind(-1)
    angles = torch.stack([torch.atan2(x, z), torch.atan2(-y, torch.hypot(x, z))], dim=-1)
    multiples = (angles[..., None] * torch.arange(1, HARMONICS + 1, device=angles.device)).flatten(-2)
    return torch.cat([directions, multiples.sin(), multiples.cos()], dim=-1)


def patch_directions(rays: Float[Tensor, "*b h w 3"], patch_size: int) -> Float[Tensor, "*b n 3"]:
    """Unit direction of the center of each patch: that of the mean of its rays."""
    maps = rays.flatten(0, -4).permute(0, 3, 1, 2)
    mean = F.avg_pool2d(maps, patch_size).flatten(2).transpose(1, 2)
    return F.normalize(mean, dim=-1).unflatten(0, rays.shape[:-3])


class SphericalEncoding(PatchFeature):
    """Learned feature of the direction of each patch; zero-init.

    Args:
        dim: width of the patch tokens that it is added to.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__(NUM_FEATURES, dim, patch_size)

    def forward(self, rays: Float[Tensor, "*b h w 3"]) -> Float[Tensor, "*b n dim"]:
        """Features of the directions of the patches."""
        return self.feature(direction_features(patch_directions(rays, self.patch_size)))

    def after_encoder(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Add the features of the calibrated rays."""
        return patches + self(observation.rays)
