"""Photometric augmentation and the yaw roll (numpy, one view at a time)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from coopmap.config.data import AugmentationConfig
from coopmap.geometry.poses import rotation_about_y

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def vary_exposure(
    images: UInt8[np.ndarray, "k h w 3"], config: AugmentationConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "k h w 3"]:
    """Give each camera of a car its own gain, as independent auto-exposure does."""
    gains = 1 + rng.uniform(-config.exposure, config.exposure, size=len(images))
    levels = np.arange(256)
    tables = np.clip(np.rint(levels * gains[:, None]), 0, 255).astype(np.uint8)
    return np.stack([table[image] for table, image in zip(tables, images, strict=True)])


def jitter(
    image: UInt8[np.ndarray, "h w 3"], config: AugmentationConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Random brightness, contrast, saturation and hue; sometimes greyscale, sometimes blurred."""
    brightness, contrast, saturation = (
        1 + rng.uniform(-limit, limit) for limit in (config.brightness, config.contrast, config.saturation)
    )
    hue = np.deg2rad(rng.uniform(-config.hue_deg, config.hue_deg))
    grey, blur = rng.random(2) < (config.greyscale_prob, config.blur_prob)
    sigma = rng.uniform(0.3, 1.5)

    matrix = _hue_matrix(hue)
    colour = 0.0 if grey else saturation
    matrix = colour * matrix + (1 - colour) * LUMA[None]
    mean = float(image.mean())
    scale, offset = brightness * contrast, brightness * (1 - contrast) * mean
    affine = np.concatenate([scale * matrix, np.full((3, 1), offset)], axis=1)
    changed = cv2.transform(image, affine)
    return cv2.GaussianBlur(changed, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if blur else changed


def _hue_matrix(angle: float) -> Float32[np.ndarray, "3 3"]:
    """Rotation of RGB about the grey axis."""
    cos, sin = np.cos(angle), np.sin(angle)
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.cross(np.eye(3), axis)
    return (cos * np.eye(3) + (1 - cos) * np.outer(axis, axis) - sin * cross).astype(np.float32)


def roll_columns(array: np.ndarray, shift: int) -> np.ndarray:
    """Turn a panorama so that column ``shift`` becomes column 0."""
    return np.roll(array, -shift, axis=1)


def roll_pose(pose: Float32[np.ndarray, "4 4"], shift: int, width: int) -> np.ndarray:
    """``T_world_view`` of the view whose panorama was rolled by ``shift`` columns."""
    return pose @ rotation_about_y(2 * np.pi * shift / width)


def roll_directions(directions: np.ndarray, shift: int, width: int) -> np.ndarray:
    """Roll a map of directions and express them in the rolled view's frame."""
    rotation = rotation_about_y(2 * np.pi * shift / width)[:3, :3].astype(directions.dtype)
    return roll_columns(directions, shift) @ rotation  # v' = R^T v, for row vectors
