"""LiDAR sweeps in ``.pcd`` files: the header is checked against the file before anything is allocated."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32
from pypcd4 import PointCloud

from coopmap.data.opv2v.errors import CorruptFrameError
from coopmap.data.opv2v.files import COPY_AGAIN, guarded, open_regular, refuse_pointer
from coopmap.geometry.carla import points_cv_from_ue

MAX_BYTES = 64_000_000
MAX_POINTS = 2_000_000
"""Some thirty times a sweep of 64 beams."""

MAX_RANGE_M = 1e5

_HEADER_BYTES = 4096
_MAX_FIELDS = 64
_MAX_COUNT = 4096
_LONGEST_LINE = 4096
_TYPES = {("F", 4), ("F", 8), *((kind, size) for kind in "IU" for size in (1, 2, 4, 8))}
_ENCODINGS = ("ascii", "binary", "binary_compressed")
_KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
_NO_VIEWPOINT = ("0", "0", "0", "1", "0", "0", "0")
_VIEWPOINT_WITHIN = 1e-4
"""Meters, and parts of a quaternion: what rounding leaves."""
_WRITE_AGAIN = "Write it again as ASCII or binary PCD with the fields x y z"


@dataclass(frozen=True)
class _Header:
    fields: tuple[str, ...]
    counts: tuple[int, ...]
    bytes_per_point: int
    points: int
    encoding: str
    lines: int
    end: int
    """Byte after the header."""


@guarded("PCD file")
def read_sweep(path: Path) -> Float32[np.ndarray, "n 3"]:
    """Points of a ``.pcd`` file (ASCII or binary) in the agent frame, OpenCV axes; none if it announces and holds none.

    Points that are not finite, farther than any sensor sees, or at the sensor itself (what simulators and drivers write
    where nothing returned) are left out.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it cannot be parsed, holds fewer points than it announces, announces what cannot be, or
            has a VIEWPOINT elsewhere than in the LiDAR.
    """
    with open_regular(path, MAX_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        header = _read_header(path, file.read(_HEADER_BYTES))
        if header.points == 0 and _nothing_follows(file, header):  # neither reader takes a file without points
            return np.empty((0, 3), np.float32)
        if header.encoding == "ascii":
            points = _read_ascii(path, file, header, size)
        else:
            points = _read_binary(path, file, header, size)
    if len(points) != header.points:
        raise _other_number(path, len(points), header, size)
    x, y, z = points.T
    with np.errstate(over="ignore", invalid="ignore"):
        squared = x * x + y * y + z * z
        keep = (squared > 0) & (squared < MAX_RANGE_M**2)  # False for NaN
    if not keep.all():
        points = points[keep]
    return points_cv_from_ue(points).astype(np.float32, copy=False)


def _read_header(path: Path, head: bytes) -> _Header:
    refuse_pointer(path, head)
    if not head:
        raise CorruptFrameError(path, "not a readable PCD file: the file is empty", COPY_AGAIN)
    values: dict[str, list[str]] = {}
    end, lines = 0, 0
    while "DATA" not in values:
        line, newline, _ = head[end:].partition(b"\n")
        if not newline and line.isascii() and lines and len(head) < _HEADER_BYTES:
            raise CorruptFrameError(
                path, f"truncated: it ends after {len(head):,} bytes, within its header, before any point", COPY_AGAIN
            )
        if not newline or not line.isascii():
            raise CorruptFrameError(
                path, "not a readable PCD file: its header is cut off, or none", "Compare it with a file that is read"
            )
        end, lines = end + len(line) + 1, lines + 1
        words = line.decode("ascii").split()
        if words and not words[0].startswith("#"):
            if words[0] not in _KEYS or words[0] in values:
                raise _no_header(path, f"line {lines} is {words[0][:20]!r}, expected one of {', '.join(_KEYS)}, once")
            values[words[0]] = words[1:]
    return _checked(path, values, lines, end)


def _checked(path: Path, values: dict[str, list[str]], lines: int, end: int) -> _Header:
    fields = values.get("FIELDS", [])
    number = len(fields)
    if not {"x", "y", "z"} <= set(fields) or number > _MAX_FIELDS:
        raise _no_header(path, f"FIELDS {' '.join(fields)[:60]}, expected x y z among them")
    sizes = _integers(path, "SIZE", values.get("SIZE", []), number, 8)
    counts = _integers(path, "COUNT", values.get("COUNT", ["1"] * number), number, _MAX_COUNT)
    types = values.get("TYPE", [])
    if len(types) != number or not set(zip(types, sizes, strict=True)) <= _TYPES:
        raise _no_header(path, f"TYPE {' '.join(types)[:60]} and SIZE {sizes} do not fit {number} fields")
    if any(counts[fields.index(axis)] != 1 or types[fields.index(axis)] != "F" for axis in "xyz"):
        raise _no_header(path, "x, y, z are expected as one float each")
    width, height = (_integers(path, key, values.get(key, ["1"]), 1, MAX_POINTS)[0] for key in ("WIDTH", "HEIGHT"))
    points = _integers(path, "POINTS", values.get("POINTS", [str(width * height)]), 1, MAX_POINTS)[0]
    if "WIDTH" in values and points != width * height:
        raise _no_header(path, f"POINTS {points}, but WIDTH {width} and HEIGHT {height}")
    _check_viewpoint(path, values.get("VIEWPOINT", []))
    (encoding,) = values["DATA"][:1] or [""]
    if encoding.lower() not in _ENCODINGS:
        raise _no_header(path, f"DATA {encoding[:20]}, expected one of {', '.join(_ENCODINGS)}")
    size = sum(size * count for size, count in zip(sizes, counts, strict=True))
    return _Header(tuple(fields), tuple(counts), size, points, encoding.lower(), lines, end)


def _check_viewpoint(path: Path, words: list[str]) -> None:
    """Refuse a place of the sensor among the points, which some programs move the points by and others do not."""
    try:
        *place, w, x, y, z = map(float, words or _NO_VIEWPOINT)
    except ValueError:
        place, w, x, y, z = [], 0.0, 0.0, 0.0, 0.0
    if len(place) != 3 or max(map(abs, [*place, x, y, z]), default=0.0) > _VIEWPOINT_WITHIN or not np.isfinite(w):
        raise CorruptFrameError(
            path,
            f"VIEWPOINT {' '.join(words)[:60]}, expected {' '.join(_NO_VIEWPOINT)}: points in the LiDAR's frame",
            "Write the points in that frame, or the usual VIEWPOINT if they are",
        )


def _integers(path: Path, key: str, words: list[str], number: int, most: int) -> list[int]:
    valid = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) < 10]
    if len(valid) != number or len(words) != number or max(valid, default=0) > most:
        raise _no_header(path, f"{key} {' '.join(words)[:60]}, expected {number} numbers of at most {most:,}")
    return valid


def _no_header(path: Path, reason: str) -> CorruptFrameError:
    return CorruptFrameError(path, f"not a readable PCD file: {reason}", _WRITE_AGAIN)


def _nothing_follows(file: BinaryIO, header: _Header) -> bool:
    """Whether a file ends with its header, but for blank lines."""
    file.seek(header.end)
    return not file.read().strip()


def _read_ascii(path: Path, file: BinaryIO, header: _Header, size: int) -> Float32[np.ndarray, "n 3"]:
    """OPV2V's format, parsed by numpy itself: told to leave ``rgb`` out, it takes 0.6 of pypcd4's time."""
    if set(header.counts) != {1}:
        raise _no_header(path, f"COUNT {list(header.counts)}: expected one value per field in ASCII")
    columns = [header.fields.index(axis) for axis in "xyz"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty file is told by its number of points
        # by name: numpy takes blocks of a file that it opens itself, and lines of one that it is given
        try:
            points = np.loadtxt(
                path, np.float32, comments=None, skiprows=header.lines, usecols=columns, ndmin=2, encoding="ascii"
            )  # fmt: skip
        except ValueError:
            if (whole := _whole_lines(file, header)) is not None:
                raise _other_number(path, whole, header, size) from None
            raise
    file.seek(max(0, size - _LONGEST_LINE))
    if len(file.read().rstrip().rpartition(b"\n")[2].split()) != len(header.fields):
        whole = _whole_lines(file, header)
        raise _other_number(path, len(points) - 1 if whole is None else whole, header, size)
    return points


def _whole_lines(file: BinaryIO, header: _Header) -> int | None:
    """Points of an ASCII file whose last line is cut off; ``None`` if others are damaged, or none."""
    file.seek(header.end)
    *lines, last = file.read().rstrip().split(b"\n")
    fields = len(header.fields)
    if len(last.split()) == fields or any(len(line.split()) != fields for line in lines):
        return None
    return len(lines)


def _other_number(path: Path, found: int, header: _Header, size: int) -> CorruptFrameError:
    """Of a file that holds another number of points than it announces, mostly fewer."""
    kind = "truncated" if found < header.points else "damaged"
    return CorruptFrameError(
        path,
        f"{kind}: {found:,} of the {header.points:,} points announced in its header (the file has {size:,} bytes)",
        COPY_AGAIN,
    )


def _read_binary(path: Path, file: BinaryIO, header: _Header, size: int) -> Float32[np.ndarray, "n 3"]:
    expected, found = header.points * header.bytes_per_point, size - header.end
    if expected > MAX_BYTES:
        raise _no_header(path, f"{header.points} points of {header.bytes_per_point} bytes")
    if header.encoding == "binary" and found < expected:
        raise CorruptFrameError(
            path, f"truncated: {found:,} of {expected:,} bytes of points, announced in its header", COPY_AGAIN
        )
    if header.encoding == "binary_compressed":
        file.seek(header.end)
        sizes = file.read(8)
        packed, unpacked = (int.from_bytes(sizes[at : at + 4], "little") for at in (0, 4))
        if packed > found - 8 or unpacked != expected:
            raise CorruptFrameError(
                path,
                f"truncated or damaged: {packed:,} bytes that unpack to {unpacked:,}, expected {found - 8:,} to "
                f"{expected:,}",
                COPY_AGAIN,
            )
    file.seek(0)
    content = file.read()
    head = content[: header.end].rpartition(b"DATA")[0]  # pypcd4 knows encodings in small letters alone
    lowered = BytesIO(head + f"DATA {header.encoding}\n".encode() + content[header.end :])
    return PointCloud.from_fileobj(BufferedReader(lowered)).numpy(("x", "y", "z")).astype(np.float32, copy=False)
