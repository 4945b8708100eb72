"""Depth in gray PNG files: whole meters in 8 bits, as OPV2V-H has it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from coopmap.data.opv2v.errors import CorruptFrameError
from coopmap.data.opv2v.images import decode_png

GRAY_FAR = 255
"""Of gray PNG files that hold meters: this far or farther."""

GRAY_REMEDY = "data.depth.source=gray reads 8-bit gray as meters"


class GrayDepthError(CorruptFrameError):
    """A PNG file that is gray where CARLA's 24-bit code is expected."""


def read_gray_png(path: Path) -> Float32[np.ndarray, "h w"]:
    """8-bit gray, whole meters; what is too far for it is unknown."""
    image = decode_png(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8 or not (image.ndim == 2 or is_gray(image)):
        raise CorruptFrameError(
            path, "not gray depth: expected 8-bit gray, in meters", "data.depth.source=png reads CARLA's 24-bit code"
        )
    gray = (image if image.ndim == 2 else image[..., 0]).astype(np.float32)
    return np.where(gray < GRAY_FAR, gray, np.float32(0))


def is_gray(image: UInt8[np.ndarray, "h w *c"]) -> bool:
    """Whether all channels of an image are alike; the sky, which is white in CARLA's code, does not count."""
    if image.ndim == 2:
        return True
    for pixels in (image[::16, ::16], image):  # a few tell of nearly every image that it is not
        blue, green, red = (pixels[..., channel] for channel in range(3))
        if not (np.array_equal(blue, green) and np.array_equal(green, red)):
            return False
    return not (image[..., 0] == GRAY_FAR).all()
