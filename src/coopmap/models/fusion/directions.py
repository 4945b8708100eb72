"""Directions of cells and cameras, and slots of cameras: without these a network cannot tell left from rear."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.fusion.cameras import NUM_CAMERAS, Cameras, combine

ENCODING_DIM = 8
"""Cosines and sines of azimuth and elevation, in the agent's frame and in the camera's."""


def encode_directions(
    rays: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b 4"]:
    """Cosine and sine of azimuth (0 = z, positive toward x) and elevation (positive upward) of unit rays."""
    x, y, z = rays.unbind(-1)
    horizontal = torch.hypot(x, z)
    safe = horizontal.clamp(min=1e-6)
    return torch.stack([z / safe, x / safe, horizontal, -y], dim=-1)


def cell_rays(cameras: Cameras, size: tuple[int, int]) -> Float[Tensor, "b gh gw 3"]:
    """Unit directions of the centers of the panorama's cells, ``size`` of them, in the agent frame."""
    mean = F.adaptive_avg_pool2d(cameras.rays.float().movedim(-1, 1), size).movedim(1, -1)
    return F.normalize(mean, dim=-1)


def camera_encoding(cameras: Cameras, size: tuple[int, int]) -> Float[Tensor, "b k gh gw 8"]:
    """Each cell's direction in the agent frame, and the same direction in each camera's frame."""
    with torch.autocast(cameras.rays.device.type, enabled=False):
        rays = cell_rays(cameras, size)
        in_camera = torch.einsum("bkji,bhwj->bkhwi", cameras.pose[..., :3, :3].float(), rays)
        in_agent = encode_directions(rays)[:, None].expand(-1, NUM_CAMERAS, -1, -1, -1)
        return torch.cat([in_agent, encode_directions(in_camera)], dim=-1)


class DirectionEmbedding(nn.Module):
    """Features of directions and slots.

    Args:
        dim: width.
        std: of the initial weights; 0 where the features are added to a reference that must hold at the start.
    """

    def __init__(self, dim: int, std: float = 0.02) -> None:
        super().__init__()
        self.angles = nn.Linear(ENCODING_DIM, dim, bias=False)
        self.slot = nn.Parameter(torch.zeros(NUM_CAMERAS, dim))
        for weight in (self.angles.weight, self.slot):
            nn.init.normal_(weight, std=std)

    def forward(self, cameras: Cameras) -> Float[Tensor, "b k n c"]:
        """One feature per camera and patch of the panorama."""
        encoding = camera_encoding(cameras, _size(cameras.angle)).flatten(2, 3)
        return self.angles(encoding) + self.slot[:, None]

    def mean(self, cameras: Cameras, weights: Float[Tensor, "b k gh gw"]) -> Float[Tensor, "b n c"]:
        """Their sum over the cameras with given weights, a quarter of the work of summing afterward."""
        encoding = camera_encoding(cameras, _size(weights)).flatten(2, 3)
        return self.angles(combine(encoding, weights)) + torch.einsum("bkhw,kc->bhwc", weights, self.slot).flatten(1, 2)


def _size(cells: Tensor) -> tuple[int, int]:
    return cells.shape[-2], cells.shape[-1]
