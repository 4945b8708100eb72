"""Depth maps in ``.npy`` files: one plain array of floats, its header checked before anything is allocated."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from coopmap.data.opv2v.errors import CorruptFrameError, MissingFileError
from coopmap.data.opv2v.files import COPY_AGAIN, guarded, read_bytes

MAX_BYTES = 256_000_000
"""A map of 4096 x 4096 pixels as float64, and half as much."""

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    rb"\{\s*'descr'\s*:\s*(?P<descr>'[^']{1,16}'|\[.*\])\s*,\s*'fortran_order'\s*:\s*(?P<order>True|False)\s*,"
    rb"\s*'shape'\s*:\s*\((?P<shape>[0-9, ]{0,100})\)\s*,?\s*\}\s*",
    re.DOTALL,
)
_FLOATS = re.compile(rb"'[<>|=]f[248]'")
_SAVE_AGAIN = "Write it again: np.save(path, depth.astype(np.float32))"
_KINDS = (
    (b"PK\x03\x04", "an .npz archive"),
    (b"\x80", "a pickle"),
    (b"\x89PNG", "a PNG"),
    (b"\x89HDF", "an HDF5 file"),
)


@guarded("readable .npy file")
def read_npy(path: Path) -> Float[np.ndarray, "..."]:
    """Array of floats of a file that ``np.save`` wrote; read-only.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it holds anything else, or less than its header says.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except MissingFileError:
        raise MissingFileError(path, "no such depth file", "Complete the depth root, or use LiDAR") from None
    if not data.startswith(_MAGIC):
        kind = next((name for start, name in _KINDS if data.startswith(start)), None)
        what = f"it is {kind}" if kind else f"it begins with {data[:8]!r}" if data else "it is empty"
        raise CorruptFrameError(path, f"not a readable .npy file ({what})", _SAVE_AGAIN if kind else COPY_AGAIN)
    descr, in_fortran_order, shape, begin = _header(path, data)
    if not _FLOATS.fullmatch(descr):
        what = "Python objects" if b"O" in descr else descr.decode("ascii", "replace")[:60]
        if re.fullmatch(rb"'[<>|=][iub][1248]'", descr):
            what = str(np.dtype(descr.decode().strip("'")))
        raise CorruptFrameError(path, f"holds {what}, expected meters as floats", _SAVE_AGAIN)
    dtype = np.dtype(descr.decode().strip("'"))
    expected, found = math.prod(shape) * dtype.itemsize, len(data) - begin
    if found != expected:
        raise CorruptFrameError(
            path, f"not a readable .npy file (truncated: {found:,} bytes of values, {expected:,} announced)"
            if found < expected else f"not a readable .npy file ({found:,} bytes of values, {expected:,} announced)",
            COPY_AGAIN if found < expected else _SAVE_AGAIN,
        )  # fmt: skip
    values = np.frombuffer(data, dtype, offset=begin)
    return values.reshape(shape, order="F" if in_fortran_order else "C")


def _header(path: Path, data: bytes) -> tuple[bytes, bool, tuple[int, ...], int]:
    """``descr``, order and shape as in the file, and where the values begin."""
    size = 2 if data[6:7] == b"\x01" else 4
    length = int.from_bytes(data[8 : 8 + size], "little")
    begin = 8 + size + length
    if len(data) < 8 + size or begin > len(data):
        raise CorruptFrameError(path, f"not a readable .npy file (truncated after {len(data)} bytes)", COPY_AGAIN)
    match = _HEADER.fullmatch(data[8 + size : begin]) if length <= _LONGEST_HEADER else None
    if match is None or data[6] not in (1, 2, 3):
        raise CorruptFrameError(path, "not a readable .npy file (its header is damaged)", _SAVE_AGAIN)
    shape = tuple(int(number) for number in match["shape"].replace(b" ", b"").split(b",") if number)
    return match["descr"], match["order"] == b"True", shape, begin
