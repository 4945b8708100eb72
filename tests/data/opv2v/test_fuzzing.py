"""Ten thousand mutated files per reader: nothing but a FrameError, at once, in little memory."""

import resource
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from coopmap.data.opv2v import FrameError, read_agent, read_image
from coopmap.data.opv2v.depth import _read_carla_png
from coopmap.data.opv2v.npy import read_npy
from coopmap.data.opv2v.pcd import read_sweep

FILES = 10_000
MAX_SECONDS, MAX_MEMORY_MB = 1.0, 500
PIECES = (
    b"[",
    b"{",
    b"- ",
    b"&a ",
    b"*a",
    b"9" * 400,
    b"!!python/tuple ",
    b"\xff",
    b"\0",
    b"1e999",
    b"\n",
    b"nan",
    b"-",
)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes: bits, bytes, cuts, copies, insertions; half of the time in the first 300 bytes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        reach = min(len(data), 300) if rng.random() < 0.5 else len(data)
        at, kind = int(rng.integers(0, max(1, reach))), int(rng.integers(0, 7))
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            data[at : at + 4] = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0")[int(rng.integers(3))]
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 200))]
        elif kind == 4:
            data[at:at] = data[at : at + int(rng.integers(1, 300))]
        elif kind == 5:
            data[at:at] = PIECES[int(rng.integers(len(PIECES)))] * int(rng.choice([1, 1, 1, 200]))
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks are believed, so that the decoder is reached."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 12 + struct.unpack_from(">I", out, at)[0]
        if end > len(out):
            break
        struct.pack_into(">I", out, end - 4, zlib.crc32(out[at + 4 : end - 4]))
        at = end
    return bytes(out)


def seed_of(kind: str, writer) -> tuple[Path, Callable[[Path], object]]:
    """A good file, and its reader."""
    points = np.random.default_rng(0).normal(size=(200, 3)) * 20
    box = {"angle": [0, 9, 0], "center": [0, 0, 1], "extent": [2, 1, 1], "location": [9, 9, 0], "speed": 3.0}
    path = writer.agent("s", "1", "000001", points_ue=points, vehicles={7: box})
    if kind == "yaml":
        return path, read_agent
    if kind == "pcd":
        return path.with_suffix(".pcd"), read_sweep
    if kind == "npy":
        np.save(path.with_name("depth.npy"), np.ones((60, 80), np.float32))
        return path.with_name("depth.npy"), read_npy
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    target = path.with_name("image.jpg" if kind == "jpg" else "image.png")
    cv2.imwrite(str(target), image)
    return target, _read_carla_png if kind == "carla" else read_image


def fuzz(kind: str, writer, tmp_path: Path, files: int) -> dict:
    """Counts of outcomes, the longest time (s) and the growth of memory (MB)."""
    source, read = seed_of(kind, writer)
    content, path = source.read_bytes(), tmp_path / f"mutated{source.suffix}"
    rng, outcomes, slowest = np.random.default_rng(len(kind)), Counter(), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(files):
        data = mutated(content, rng)
        if kind in ("png", "carla") and number % 2:
            data = with_right_checksums(data)
        path.write_bytes(data)
        started = time.process_time()  # of this process: others may keep it waiting
        try:
            read(path)
            outcomes["read"] += 1
        except FrameError as error:
            outcomes["refused" if error.path == path and len(str(error)) < 2000 else "not named"] += 1
        slowest = max(slowest, time.process_time() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {**outcomes, "slowest_s": slowest, "grown_mb": grown}


KINDS = ("yaml", "png", "jpg", "carla", "npy", "pcd")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("files", [50, pytest.param(FILES, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_mutated_files(kind, files, writer, tmp_path):
    result = fuzz(kind, writer, tmp_path, files)
    print(kind, result)
    assert result["slowest_s"] < MAX_SECONDS
    assert result["grown_mb"] < MAX_MEMORY_MB
    assert "not named" not in result
    assert result["refused"] > files / 10
