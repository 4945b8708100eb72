"""Along which line each patch of a mosaic looks: its direction and its moment about the agent's center.

Rays alone say how a line of sight is turned, not where it starts; with the center ``c`` of the camera and the direction
``d`` the moment ``c x d`` does (Plücker coordinates). A range from the agent's center needs both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.rig import SLOTS_BY_AZIMUTH
from coopmap.models.addons.base import PatchFeature
from coopmap.models.addons.spherical import patch_directions
from coopmap.models.priors import where_given
from coopmap.types import Observation
from coopmap.types.agents import camera_centers_by_azimuth


class PluckerEncoding(PatchFeature):
    """Learned feature of the line of sight of each patch; zero at first.

    Directions are linear in the pixel within a patch, and moments in the direction: the middle of a patch is enough.

    Args:
        dim: width of the patch tokens that it is added to.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__(6, dim, patch_size)

    def forward(self, lines: Float[Tensor, "*b n 6"]) -> Float[Tensor, "*b n dim"]:
        """Features of :func:`patch_lines`."""
        return self.feature(lines)

    def after_geometry(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Add the features to the views that rays are given of.

        Raises:
            ValueError: if the views are not mosaics.
        """
        lines = patch_lines(observation, self.patch_size)
        return patches + where_given(observation.rays_given, self(lines))


def patch_lines(observation: Observation, patch_size: int) -> Float[Tensor, "b v n 6"]:
    """Unit direction and moment (meters) of the line of sight of each patch of a mosaic, view frame.

    Raises:
        ValueError: if the views are not mosaics.
    """
    cameras, columns = len(SLOTS_BY_AZIMUTH), observation.rays.shape[3] // patch_size
    if observation.camera_pose is None or observation.images.ndim != 5 or columns % cameras:
        raise ValueError("model.plucker=true needs an agent's cameras side by side: expected data.layout=mosaic")
    direction = patch_directions(observation.rays, patch_size).unflatten(2, (-1, cameras, columns // cameras))
    center = camera_centers_by_azimuth(observation.camera_pose)
    moment = torch.linalg.cross(center[:, :, None, :, None].expand_as(direction), direction)
    return torch.cat([direction, moment], dim=-1).flatten(2, 4)
