"""Photometric augmentation, the yaw roll and the tilt (numpy, one view at a time)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from coopmap.config.data import AugmentationConfig

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def draw_gains(num_cameras: int, config: AugmentationConfig, rng: np.random.Generator) -> Float[np.ndarray, " k"]:
    """A gain for each camera of a car, as independent auto-exposure gives them."""
    return 1 + rng.uniform(-config.exposure, config.exposure, size=num_cameras)


def jitter(
    image: UInt8[np.ndarray, "*k h w 3"], config: AugmentationConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "*k h w 3"]:
    """Random brightness, contrast, saturation and hue; sometimes grayscale, sometimes blurred. One draw for all."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-limit, limit) for limit in (config.brightness, config.contrast, config.saturation)
    )
    hue = np.deg2rad(rng.uniform(-config.hue_deg, config.hue_deg))
    gray, blur = rng.random(2) < (config.grayscale_prob, config.blur_prob)
    sigma = rng.uniform(0.3, 1.5)

    matrix = _hue_matrix(hue)
    color = 0.0 if gray else saturation
    matrix = color * matrix + (1 - color) * LUMA[None]
    strip = image.reshape(-1, image.shape[-2], 3)
    mean = sum(cv2.mean(strip)[:3]) / 3
    scale, offset = brightness * contrast, brightness * (1 - contrast) * mean
    affine = np.concatenate([scale * matrix, np.full((3, 1), offset)], axis=1)
    changed = cv2.transform(strip, affine).reshape(image.shape)
    if blur:
        for one in changed.reshape(-1, *image.shape[-3:]):
            cv2.GaussianBlur(one, (0, 0), sigma, dst=one, borderType=cv2.BORDER_REPLICATE)
    return changed


def _hue_matrix(angle: float) -> Float32[np.ndarray, "3 3"]:
    """Rotation of RGB about the gray axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.cross(np.eye(3), axis)
    return (cos * np.eye(3) + (1 - cos) * np.outer(axis, axis) - sin * cross).astype(np.float32)


def roll_columns(array: np.ndarray, shift: int) -> np.ndarray:
    """Turn panoramas ``(*k, h, w)`` or ``(*k, h, w, 3)`` so that column ``shift`` becomes column 0."""
    return np.roll(array, -shift, axis=-2 if array.shape[-1] == 3 and array.ndim > 2 else -1) if shift else array


def draw_tilt(config: AugmentationConfig, rng: np.random.Generator) -> Float[np.ndarray, "4 4"] | None:
    """``T_agent_tilted`` with random pitch and roll; ``None`` if there is no such augmentation.

    The numbers come from a generator of their own: what else is drawn for a sample stays the same.
    """
    if config.tilt_deg == 0:
        return None
    pitch, roll = rng.spawn(1)[0].uniform(-1, 1, size=2) * np.deg2rad(config.tilt_deg)
    return tilt_rotation(pitch, roll)


def tilt_rotation(pitch: float, roll: float) -> Float[np.ndarray, "4 4"]:
    """``T_agent_tilted`` of a frame that is pitched (radians, nose up) and then rolled about its own forward axis.

    Positive roll lowers the right side.
    """
    cos, sin = np.cos(pitch), np.sin(pitch)
    pitched = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    cos, sin = np.cos(roll), np.sin(roll)
    rolled = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    pose = np.eye(4)
    pose[:3, :3] = pitched @ rolled
    return pose


def rotated(vectors: Float[np.ndarray, "h w 3"], pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "h w 3"]:
    """Vectors turned by the rotation of ``T_a_b``, in their own precision."""
    return cv2.transform(vectors, pose[:3, :3].astype(vectors.dtype))
