"""PNG and JPEG files: decoding with the checks that OpenCV leaves out, of sizes known before anything is decoded."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from coopmap.data.opv2v.errors import CorruptFrameError, FrameError, MetadataError, MissingFileError
from coopmap.data.opv2v.files import COPY_AGAIN, guarded, open_regular, read_bytes
from coopmap.data.opv2v.quick_png import quick_rgb

MAX_BYTES = 64_000_000
MAX_PIXELS = 4096 * 4096
"""Of an image of 24 bits 50 MB."""

JPEG_SUFFIXES = (".jpg", ".jpeg")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
_HEAD_BYTES = 65_536  # of a JPEG: its size may follow a thumbnail
_MAX_OFF_CENTER = 0.05
"""Of width or height: real cameras are off by less; more is an image that was resized without its calibration."""


def read_image(path: Path, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an RGB image.

    Args:
        path: PNG or JPEG file; if there is no ``.png`` of this name, a ``.jpg`` or ``.jpeg`` beside it will do.
        size: expected ``(height, width)``, that of the calibration.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is truncated, damaged, too large or no image.
        MetadataError: if it has another size than ``size``.
    """
    return _decode(path, cv2.IMREAD_COLOR, size)


def read_images(paths: Sequence[Path], size: tuple[int, int]) -> UInt8[np.ndarray, "k h w 3"]:
    """Read equally large RGB images into one array; see :func:`read_image`."""
    images = np.empty((len(paths), *size, 3), dtype=np.uint8)
    for slot, path in enumerate(paths):
        images[slot] = _decode(path, cv2.IMREAD_COLOR, size)
    return images


def is_turned(path: Path) -> bool:
    """Whether :func:`read_image` turns what the file stores, as its EXIF orientation asks."""
    stored = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, None)
    return not np.array_equal(stored, read_image(path))


def decode_png(path: Path, flags: int) -> np.ndarray:
    """Decode a PNG as ``cv2.imread(path, flags)`` would, but in RGB order, and complain about damaged files.

    OpenCV 4 returns a truncated PNG as an image whose lower part is black.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is truncated, damaged, too large or not a PNG.
    """
    data = read_bytes(path, MAX_BYTES)
    if data and not data.startswith(_SIGNATURE):
        raise CorruptFrameError(path, f"not a PNG file, but {_kind(data)}", "Write it as PNG")
    return _decoded(path, data, flags, None)


def _decode(path: Path, flags: int, size: tuple[int, int] | None) -> np.ndarray:
    try:
        data = read_bytes(path, MAX_BYTES)
    except MissingFileError as missing:
        path = _jpeg_beside(path) or path
        if path == missing.path:
            raise
        data = read_bytes(path, MAX_BYTES)
    return _decoded(path, data, flags, size)


def image_file(path: Path) -> Path:
    """The file that :func:`read_image` reads under this name: a JPEG if there is no PNG; ``path`` if neither."""
    return path if os.path.exists(path) else _jpeg_beside(path) or path


def names_of_image(path: Path) -> list[str]:
    """Names that :func:`read_image` finds an image under that is asked for as ``path``."""
    return [path.name, *(other.name for other in _jpegs_of(path))]


def _jpeg_beside(path: Path) -> Path | None:
    return next((other for other in _jpegs_of(path) if os.path.lexists(other)), None)


def _jpegs_of(path: Path) -> list[Path]:
    return [path.with_suffix(suffix) for suffix in (*JPEG_SUFFIXES, *(suffix.upper() for suffix in JPEG_SUFFIXES))]


@guarded("image")
def _decoded(path: Path, data: bytes, flags: int, expected: tuple[int, int] | None) -> np.ndarray:
    size = checked_size(path, data)
    if expected is not None:
        check_size(path, size, expected)
    if flags != cv2.IMREAD_GRAYSCALE and (quick := quick_rgb(data, size)) is not None:
        return quick
    if defect := image_defect(data):
        raise CorruptFrameError(path, defect, COPY_AGAIN)
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None:
        raise CorruptFrameError(path, f"the {_kind(data)} cannot be decoded", COPY_AGAIN)
    if expected is not None:
        check_size(path, image.shape[:2], expected)  # a JPEG may have been turned
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=image)


def check_size(path: Path, actual: Sequence[int], expected: tuple[int, int]) -> None:
    """Raise a MetadataError if the ``(height, width)`` of a file is not that of the calibration."""
    if tuple(actual) != expected:
        raise MetadataError(
            path,
            f"the file is {' x '.join(map(str, actual))} (height x width), its calibration is for "
            f"{expected[0]} x {expected[1]} (twice the principal point)",
            "Resized images need their YAML intrinsics scaled alike",
        )


def size_of_cameras(yaml_path: Path, center: Float[np.ndarray, "k 2"]) -> tuple[int, int]:
    """``(height, width)`` of an agent's images: what the first of them says, if the calibration can be of that size.

    Otherwise twice the principal points, so that images of another size are found when they are read.

    Args:
        yaml_path: the metadata file that the images are beside.
        center: principal points of the cameras, as ``(y, x)``.

    Raises:
        MetadataError: if the cameras differ in size, or have none that an image could have.
    """
    size = _first_size(yaml_path)
    if size is not None and (np.abs(center / size - 0.5) <= _MAX_OFF_CENTER).all():
        return size
    if not ((center >= 1) & (center <= MAX_PIXELS)).all():
        raise MetadataError(
            yaml_path,
            f"the principal points (y, x) are {center.tolist()}",
            "Expected 'intrinsic' in pixels, with cx and cy near the center of the image",
        )
    sizes = np.rint(2 * center).astype(int)
    tolerance = 0 if size is not None else _MAX_OFF_CENTER * sizes[0]
    if (np.abs(sizes - sizes[0]) > tolerance).any():
        raise MetadataError(yaml_path, f"the cameras differ in image size: {sizes.tolist()}", "One size is supported")
    height, width = sizes[0].tolist()
    if height * width > MAX_PIXELS:
        raise MetadataError(yaml_path, f"the principal points ask for images of {height} x {width}", "Correct them")
    return height, width


def image_stamp(yaml_path: Path) -> tuple[int, int]:
    """Bytes and time (ns) of the image that says how large an agent's images are; zeros if there is none."""
    for path in _first_images(yaml_path):
        try:
            found = path.stat()
        except OSError:
            continue
        return found.st_size, found.st_mtime_ns
    return 0, 0


def _first_images(yaml_path: Path) -> Iterator[Path]:
    """Names that the image of camera 0 may have."""
    for suffix in (".png", *JPEG_SUFFIXES):
        yield yaml_path.with_name(f"{yaml_path.stem}_camera0{suffix}")


def _first_size(yaml_path: Path) -> tuple[int, int] | None:
    """Of the image of camera 0."""
    for path in _first_images(yaml_path):
        try:
            with open_regular(path, MAX_BYTES) as file:
                return checked_size(path, file.read(32 if path.suffix == ".png" else _HEAD_BYTES))
        except MissingFileError:
            continue
        except (FrameError, OSError):  # whoever reads the image will say so
            return None
    return None


def checked_size(path: Path, data: bytes) -> tuple[int, int]:
    """``(height, width)`` from the header of a PNG or JPEG.

    Raises:
        CorruptFrameError: if it is neither, or has more than :data:`MAX_PIXELS` pixels.
    """
    if not data:
        raise CorruptFrameError(path, "the file is empty", COPY_AGAIN)
    if not data.startswith((_SIGNATURE, _JPEG_START)):
        raise CorruptFrameError(path, f"not a PNG file nor a JPEG, but {_kind(data)}", "Write it as PNG")
    size = _png_size(data) if data.startswith(_SIGNATURE) else _jpeg_size(data)
    if size is None:
        kind = "JPEG" if path.suffix.lower() in JPEG_SUFFIXES else "PNG"
        other = f"not a {kind} file but a {_kind(data)}, " if _kind(data) != kind else ""
        raise CorruptFrameError(path, f"{other}the {_kind(data)} is truncated after {len(data)} bytes", COPY_AGAIN)
    height, width = size
    if not 0 < height * width <= MAX_PIXELS:
        raise CorruptFrameError(
            path, f"announces {height} x {width} pixels, expected at most {MAX_PIXELS:,} in all", COPY_AGAIN
        )
    return size


def _kind(data: bytes) -> str:
    kinds = (
        (_SIGNATURE, "PNG"), (_JPEG_START, "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"BM", "BMP"),
        (b"\x93NUMPY", "a .npy array"), (b"PK", "a zip archive"), (b"version https://git-lfs", "a Git LFS pointer"),
    )  # fmt: skip
    kind = next((name for start, name in kinds if data.startswith(start)), None)
    return "WebP" if data[8:12] == b"WEBP" else kind or f"something that begins with {data[:8]!r}"


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the first frame header."""
    position = 2
    while (position := _at_marker(data, position)) + 9 <= len(data):
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        if data[position] != 0xFF or length < 2 or kind == 0xDA:
            return None
        position += 2 + length
    return None


def _at_marker(data: bytes, position: int) -> int:
    while data[position + 1 : position + 2] == b"\xff":  # padding
        position += 1
    return position


def image_defect(data: bytes) -> str | None:
    """What is wrong with the parts of a PNG or JPEG, or ``None``; costs 1 to 2 % of decoding."""
    return _png_defect(data) if data.startswith(_SIGNATURE) else _jpeg_defect(data)


def _jpeg_defect(data: bytes) -> str | None:
    """What is wrong with the segments of a JPEG, or ``None``; OpenCV fills missing parts with gray."""
    position = 2
    while data[position : position + 2] != b"\xff\xda":  # start of the scan
        position = _at_marker(data, position)
        length = int.from_bytes(data[position + 2 : position + 4])
        if data[position : position + 1] != b"\xff" or length < 2:
            break
        position += 2 + length
    else:
        if data.find(b"\xff\xd9", position) >= 0:  # end of image; within a scan 0xff is followed by 0x00 or a restart
            return None
    return f"the JPEG is truncated after {len(data)} bytes"


def _png_defect(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG, or ``None``."""
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
