"""Ordinary color PNG files, decoded in less than half of OpenCV's time by Rust's ``png`` (kornia-rs)."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from kornia_rs.io import decode_image_png_u8

_IHDR_KIND = slice(24, 26)
_EIGHT_BIT_RGB = b"\x08\x02"
_LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"


def quick_rgb(data: bytes, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of a PNG file of 8-bit RGB; ``None`` if it is anything else, or damaged.

    The decoder verifies checksums, so that no separate pass over the file is needed.

    Args:
        data: content of the file.
        size: ``(height, width)`` that its header announces.
    """
    if data[_IHDR_KIND] != _EIGHT_BIT_RGB or not data.endswith(_LAST_CHUNK):
        return None
    try:
        return np.asarray(decode_image_png_u8(data, size, "rgb"))
    except MemoryError:
        raise
    except Exception:  # the library has no class of its own for this; OpenCV and our checks say what is wrong
        return None
