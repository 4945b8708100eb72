"""PNG files: decoding with the checks that OpenCV leaves out."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from coopmap.data.opv2v.errors import CorruptFrameError, MetadataError, MissingFileError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COPY_AGAIN = "Copy or unpack the file again"


def read_image(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an RGB image.

    Args:
        path: PNG file.
        size: expected ``(height, width)``, that of the calibration.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is truncated, damaged or not a PNG.
        MetadataError: if it has another size than ``size``.
    """
    image = _read_bgr(path, size)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_images(paths: Sequence[Path], size: tuple[int, int]) -> UInt8[np.ndarray, "k h w 3"]:
    """Read equally large RGB images into one array; see :func:`read_image`."""
    images = np.empty((len(paths), *size, 3), dtype=np.uint8)
    for slot, path in enumerate(paths):
        cv2.cvtColor(_read_bgr(path, size), cv2.COLOR_BGR2RGB, dst=images[slot])
    return images


def _read_bgr(path: Path, size: tuple[int, int] | None) -> UInt8[np.ndarray, "h w 3"]:
    image = decode_png(path, cv2.IMREAD_COLOR)
    if size is not None:
        check_size(path, image.shape[:2], size)
    return image


def decode_png(path: Path, flags: int) -> np.ndarray:
    """Decode a PNG as ``cv2.imread(path, flags)`` would, but complain about damaged files.

    OpenCV 4 returns a truncated PNG as an image whose lower part is black.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is truncated, damaged or not a PNG.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(path, "no such file", "Unpack the missing part of the dataset") from None
    if defect := _png_defect(data):
        raise CorruptFrameError(path, defect, _COPY_AGAIN)
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None:
        raise CorruptFrameError(path, "the PNG cannot be decoded", _COPY_AGAIN)
    return image


def check_size(path: Path, actual: Sequence[int], expected: tuple[int, int]) -> None:
    """Raise a MetadataError if the ``(height, width)`` of a file is not that of the calibration."""
    if tuple(actual) != expected:
        raise MetadataError(
            path,
            f"the file is {' x '.join(map(str, actual))} (height x width), its calibration is for "
            f"{expected[0]} x {expected[1]} (twice the principal point)",
            "Resized images need their YAML intrinsics scaled alike",
        )


def _png_defect(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG, or ``None``; costs 1 to 2 % of decoding."""
    if not data:
        return "the file is empty"
    if not data.startswith(_SIGNATURE):
        return "not a PNG file"
    view = memoryview(data)  # slices of bytes would be copies
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        kind = data[position + 4 : position + 8]
        if end > len(data):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return f"the PNG is damaged: wrong checksum of chunk {kind!r} at byte {position}"
        if kind == b"IEND":
            return None
        position = end
    return f"the PNG is truncated after {len(data)} bytes"
