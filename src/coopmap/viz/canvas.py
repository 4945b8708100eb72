"""What pictures are put together from: text, strips of it, pictures at a width, pictures that are see-through."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

WHITE = 255
INK = (30, 30, 30)
FONT_SIZE = 0.45
"""Factor on OpenCV's font."""


def put_text(canvas: UInt8[np.ndarray, "h w 3"], text: str, left: int, baseline: int) -> int:
    """Write and return where the text ends; OpenCV's font has ASCII only."""
    plain, font = text.encode("ascii", "replace").decode(), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, plain, (left, baseline), font, FONT_SIZE, INK, 1, cv2.LINE_AA)
    return left + int(cv2.getTextSize(plain, font, FONT_SIZE, 1)[0][0])


def text_strip(height: int, width: int, text: str) -> UInt8[np.ndarray, "h w 3"]:
    """A line of text on white."""
    strip = np.full((height, width, 3), WHITE, np.uint8)
    put_text(strip, text, 0, height - 7)
    return strip


def at_width(
    picture: UInt8[np.ndarray, "h w c"], width: int, enlarge: int = cv2.INTER_NEAREST
) -> UInt8[np.ndarray, "ht wt c"]:
    """The picture at a width in pixels; ``enlarge`` is OpenCV's interpolation where it gets larger."""
    size = width, max(1, round(picture.shape[0] * width / picture.shape[1]))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if width < picture.shape[1] else enlarge)


def with_alpha(picture: UInt8[np.ndarray, "h w 3"], shown: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """RGBA, see-through where nothing is shown."""
    rgba = np.dstack([picture, np.full(shown.shape, 255, np.uint8)])
    rgba[~shown] = 0
    return rgba
