"""Arrays of a record: directions in 16 bits, and the pixels of vehicles."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from coopmap.data.augmentation import roll_columns
from coopmap.data.opv2v import VehicleBoxes
from coopmap.data.vehicles import VehiclePixels

DIRECTION_STEP = 0.25 / 32767
"""Of the 16-bit differences between a target ray and the nominal ray. Rounding moves a ray by at most
``sqrt(3) / 2`` of it: 6.6e-6 rad, 0.33 mm at 50 m. Rays that differ by more than 0.25 are kept as they are."""

Content = dict[str, np.ndarray]


def encoded_rays(rays: Float32[np.ndarray, "h w 3"], nominal_rays: Float32[np.ndarray, "h w 3"]) -> Content:
    """Unit rays as 16-bit differences from the nominal ones, and those that are too far off as they are."""
    steps = np.rint((rays - nominal_rays) / np.float32(DIRECTION_STEP))
    far = np.abs(steps).max(axis=-1) > np.iinfo(np.int16).max
    steps[far] = 0
    return {"directions": steps.astype(np.int16), "far_at": np.flatnonzero(far).astype(np.int32), "far_rays": rays[far]}


def decoded_rays(
    content: Mapping[str, np.ndarray],
    view_from_agent: Float[np.ndarray, "3 3"],
    nominal_rays: Float32[np.ndarray, "h w 3"],
    shift: int = 0,
) -> Float32[np.ndarray, "h w 3"]:
    """The inverse of :func:`encoded_rays`, turned, and rolled by columns.

    Args:
        content: what it gave.
        view_from_agent: rotation into the frame of the answer.
        nominal_rays: in that frame, where they are the same for all rolls.
        shift: column that becomes column 0.
    """
    turn = view_from_agent.astype(np.float32)
    steps = roll_columns(content["directions"], shift).astype(np.float32)
    rays = cv2.transform(steps, turn * np.float32(DIRECTION_STEP))
    rays += nominal_rays
    row, column = np.divmod(content["far_at"], nominal_rays.shape[1])
    rays[row, (column - shift) % nominal_rays.shape[1]] = content["far_rays"] @ turn.T
    return rays


def encoded_vehicles(pixels: VehiclePixels) -> Content:
    """Pixels of vehicles."""
    return {f"vehicle_{name}": values for name, values in vars(pixels).items()}


def decoded_masks(
    content: Mapping[str, np.ndarray], agent: str, vehicles: VehicleBoxes, shape: tuple[int, ...]
) -> tuple[Bool[np.ndarray, "*h"], Bool[np.ndarray, "*h"]]:
    """Moving vehicles and own body from :func:`encoded_vehicles`, for the vehicles that are listed now."""
    pixels = VehiclePixels(*(content[f"vehicle_{name}"] for name in VehiclePixels.__annotations__))
    return pixels.masks(agent, vehicles.ids, shape)
