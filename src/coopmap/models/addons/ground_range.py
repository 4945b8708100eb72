"""How far away the ground is that each patch would show if nothing stood in front of it.

Calibration tells it: the camera's height over the ground and the direction of the patch. What a network infers of
ranges from how things look holds for the places that it was trained on; this cue holds anywhere. It is the range to the
bowl's plane (:func:`coopmap.geometry.panorama.surface_range`), parallel to the car's own floor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from coopmap.models.addons.base import PatchFeature
from coopmap.types import Observation
from coopmap.types.agents import camera_centers_by_azimuth

SAMPLES = 2
"""Per side of a patch: near the horizon the range changes much from one row to the next."""
UNIT_M, FARTHEST_M, NEAREST_M = 10.0, 100.0, 1.0


class GroundRange(PatchFeature):
    """Learned feature of the range to the ground in each patch; zero at first.

    Args:
        dim: width of the patch tokens that it is added to.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__(2 * SAMPLES**2, dim, patch_size)

    def forward(self, nearness: Float[Tensor, "*b n s"]) -> Float[Tensor, "*b n dim"]:
        """Features of :func:`ground_nearness`: the nearness itself, and the logarithm of the range up to 100 m."""
        log_range = -nearness.clamp(1 / FARTHEST_M, 1 / NEAREST_M).log()
        return self.feature(torch.cat([UNIT_M * nearness, log_range], dim=-1))

    def after_geometry(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Add the features; nothing where the height of the cameras is unknown."""
        if observation.ground_height_m is None:
            return patches
        return patches + self(ground_nearness(observation, self.patch_size))


def ground_nearness(observation: Observation, patch_size: int) -> Float[Tensor, "b v n s"]:
    """1 / range (1/m) from where a ray starts to the ground, at ``SAMPLES x SAMPLES`` places of each patch.

    0 at and above the horizon. Half the side of a patch is averaged, which is exact where the nearness, the sine of the
    ray's depression over the height, is linear in the pixel.

    Raises:
        ValueError: if the observation does not say how high the agents' origins are.
    """
    height, down = observation.ground_height_m, observation.rays[..., 1]
    if height is None:
        raise ValueError("expected observation.ground_height_m")
    height = height.to(down)[..., None, None]
    if observation.rig_pose is not None:  # views are cameras
        axis = observation.rig_pose.to(down)[:, :, 1]
        down = torch.einsum("bvhwk,bvk->bvhw", observation.rays, axis[..., :3])
        height = height - axis[..., None, None, 3]
    elif observation.camera_pose is not None and observation.images.ndim == 5:  # a mosaic: rays start at its cameras
        below = camera_centers_by_azimuth(observation.camera_pose.to(down))[..., 1]
        height = height - below.repeat_interleave(down.shape[-1] // below.shape[-1], dim=-1)[:, :, None]
    nearness = (down / height.clamp(min=0.1)).clamp(min=0.0)
    sampled = F.avg_pool2d(nearness.flatten(0, 1)[:, None], patch_size // SAMPLES, patch_size // SAMPLES)
    patches = F.pixel_unshuffle(sampled, SAMPLES).flatten(2).mT
    return patches.unflatten(0, down.shape[:2])
