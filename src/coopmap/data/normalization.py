"""From 8-bit images to what DINOv2 expects, on whatever device they are (torch), and back to look at them.

Loader processes hand over bytes: a quarter of the memory traffic, and the arithmetic is nothing to a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from coopmap.data.views import IMAGE_MEAN, IMAGE_STD
from coopmap.types import Batch, Observation, Sample, Target

Record = TypeVar("Record", Sample, Batch)


def normalize(record: Record) -> Record:
    """A sample or batch whose 8-bit images became normalized floats; itself, if they are floats already."""
    if record.observation.images.dtype != torch.uint8:
        return record
    images = normalized_images(record.observation.images, _seen(record.observation, record.target))
    return replace(record, observation=replace(record.observation, images=images))


def normalized_images(
    images: UInt8[Tensor, "*b 3 h w"], seen: Bool[Tensor, "*b h w"] | None = None
) -> Float[Tensor, "*b 3 h w"]:
    """RGB as DINOv2 expects it; zero, the mean color, which says nothing, where nothing is seen."""
    mean, std = _mean_and_std(images.device)
    values = images.to(torch.float32).div_(255).sub_(mean).div_(std)
    return values if seen is None else values.masked_fill_(~seen.unsqueeze(-3), 0.0)


def pictures_of(images: Float[Tensor, "*b 3 h w"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Normalized images, on the CPU, as 8-bit RGB."""
    values = images.movedim(-3, -1).numpy() * IMAGE_STD + IMAGE_MEAN
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8)


@lru_cache(maxsize=8)
def _mean_and_std(device: torch.device) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Kept on the device: to send them with each batch would make the host wait."""
    mean, std = (torch.from_numpy(values)[:, None, None].to(device) for values in (IMAGE_MEAN, IMAGE_STD))
    return mean, std


def _seen(observation: Observation, target: Target) -> Bool[Tensor, "*b h w"] | None:
    """Pixels that a camera covers; ``None`` if those are camera images, which are whole."""
    if observation.camera_grid is not None:
        return None
    if observation.camera_angle is not None:  # warped cameras
        return observation.camera_angle.isfinite()
    return target.non_ambiguous
