"""An agent's cameras as inputs of the fusion blocks, and their alignment with the panorama."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.rig import SLOTS
from coopmap.types import Observation

NUM_CAMERAS = len(SLOTS)


class Cameras(NamedTuple):
    """The ``k`` cameras of ``b`` agents; the cells of the panorama are pixels of warped images, else patches.

    Attributes:
        images: normalized; zero where a warped image shows nothing.
        rays: directions of the panorama's pixels in the agent frame.
        angle: between the optical axis and the content of a cell in a camera; infinity where the camera does not see
            it.
        grid: where the centers of the cells lie in each camera, ``(x, y)`` from -1 to 1; ``None`` for warped images.
        pose: ``T_agent_camera``.
    """

    images: Float[Tensor, "b k 3 h w"]
    rays: Float[Tensor, "b hp wp 3"]
    angle: Float[Tensor, "b k gh gw"]
    grid: Float[Tensor, "b k gh gw 2"] | None
    pose: Float[Tensor, "b k 4 4"]

    @property
    def seen(self) -> Bool[Tensor, "b k gh gw"]:
        """Cells that a camera sees."""
        return self.angle.isfinite()

    @property
    def share(self) -> Float[Tensor, "b k gh gw"]:
        """Weights of the mean over the cameras that see a cell; zero where none does."""
        seen = self.seen.to(self.angle.dtype)
        return seen / seen.sum(dim=1, keepdim=True).clamp(min=1)

    @property
    def winner(self) -> Float[Tensor, "b k gh gw"]:
        """1 for the camera whose optical axis is closest to what a cell shows; zero where none sees it."""
        slots = torch.arange(self.angle.shape[1], device=self.angle.device)[:, None, None]
        return ((self.angle.argmin(dim=1, keepdim=True) == slots) & self.seen).to(self.angle.dtype)


def group_cameras(observation: Observation, layout: str) -> Cameras:
    """The cameras of a batch of grouped or warped images, agents of all samples one after the other.

    Raises:
        ValueError: if the observation is of another data layout.
    """
    images, angle, grid = observation.images, observation.camera_angle, observation.camera_grid
    fits = angle is not None and observation.camera_pose is not None and images.ndim == 6
    if not fits or images.shape[2] != NUM_CAMERAS or (layout == "grouped") != (grid is not None):
        raise ValueError(
            f"this fusion block works on images of data.layout={layout}, {NUM_CAMERAS} cameras per view; got "
            f"images of shape {tuple(images.shape)}, "
            f"camera_grid {'is missing' if grid is None else 'of shape ' + str(tuple(grid.shape))}"
        )
    assert angle is not None
    assert observation.camera_pose is not None
    angle = angle.flatten(0, 1)
    if grid is not None:
        grid = grid.flatten(0, 1).masked_fill(~angle.isfinite()[..., None], 0)  # any finite value
    return Cameras(
        images.flatten(0, 1), observation.rays.flatten(0, 1), angle, grid, observation.camera_pose.flatten(0, 1)
    )


def resample(maps: Float[Tensor, "b k c h w"], grid: Float[Tensor, "b k gh gw 2"]) -> Float[Tensor, "b k gh*gw c"]:
    """Features of camera patches at the centers of the panorama's, bilinear.

    Beyond the centers of the outermost patches the nearest ones are repeated, so that nothing fades toward the border
    of an image. Always in float32: the grid needs finer steps than bfloat16 has.
    """
    with torch.autocast(maps.device.type, enabled=False):
        sampled = F.grid_sample(
            maps.flatten(0, 1).float(), grid.flatten(0, 1).float(), padding_mode="border", align_corners=False
        )
    return sampled.flatten(2).transpose(1, 2).unflatten(0, maps.shape[:2])


def combine(features: Float[Tensor, "b k n c"], weights: Float[Tensor, "b k gh gw"]) -> Float[Tensor, "b n c"]:
    """Sum over the cameras."""
    return (features * weights.flatten(2)[..., None]).sum(dim=1)
