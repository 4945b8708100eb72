"""A checksum at the end of a checkpoint: a file that was cut off or altered by one bit is recognized.

The checksum is the comment of the zip archive that ``torch.save`` writes, so that it cannot be lost when the file is
copied, or be that of another file when a job is killed between two writes. Every reader of zip archives skips it.
CRC-32 finds every error of up to 32 bits in a row and costs a second per GB; nobody is to be stopped from forging it.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from coopmap.config.checks import ConfigError

MARK = b"coopmap crc32 "
SEAL_BYTES = len(MARK) + 8
_COMMENT_LENGTH = SEAL_BYTES.to_bytes(2, "little")
_CHUNK = 1 << 20
_whole: set[tuple[int, ...]] = set()
"""Identity, size and time of files that were found whole, so that each is verified once per process."""


class SealedStream:
    """Passes a zip archive on to ``stream`` and adds its checksum in :meth:`close`.

    Args:
        stream: opened for writing; stays open.

    Attributes:
        error: why the stream refused a write; writers in C++ report such errors without their cause.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.error: OSError | None = None
        self._stream, self._sum, self._held_back = stream, 0, b""

    def write(self, data: bytes | memoryview) -> int:
        """Write, but for the last two bytes so far: an archive ends with the length of its comment."""
        view = memoryview(data).cast("B")
        if len(view) < 2:
            joined = self._held_back + bytes(view)
            self._put(joined[:-2])
            self._held_back = joined[-2:]
        else:
            self._put(self._held_back)
            self._put(view[:-2])
            self._held_back = bytes(view[-2:])
        return len(view)

    def flush(self) -> None:
        """Flush what was passed on."""
        self._stream.flush()

    def close(self) -> None:
        """Add the checksum."""
        assert self._held_back == b"\0\0", "the archive has a comment"
        self._put(_COMMENT_LENGTH)
        self._stream.write(_seal(self._sum))

    def _put(self, data: bytes | memoryview) -> None:
        try:
            self._put_all(data)
        except OSError as error:
            self.error = error
            raise
        self._sum = zlib.crc32(data, self._sum)

    def _put_all(self, data: bytes | memoryview) -> None:
        self._stream.write(data)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or ``None``; reads all of it.

    Archives without our checksum are judged by those that zip keeps per entry.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return "is not a file"
    size = path.stat().st_size
    if size == 0:
        return "is empty"
    with path.open("rb") as stream:
        stream.seek(max(0, size - SEAL_BYTES))
        seal = stream.read()
        if not seal.startswith(MARK):
            return _unsealed_damage(path)
        stream.seek(0)
        found, left = 0, size - SEAL_BYTES
        while left and (chunk := stream.read(min(_CHUNK, left))):
            found = zlib.crc32(chunk, found)
            left -= len(chunk)
    return None if seal == _seal(found) else "was altered after it was written (its checksum differs)"


def _seal(checksum: int) -> bytes:
    return MARK + b"%08x" % checksum


def _unsealed_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.comment:
                return "was altered after it was written (its checksum is illegible)"
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "is a compressed archive, not one that torch.save wrote"
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                return "is an archive whose entries overlap, not one that torch.save wrote"
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError):
        return "is not a whole torch.save archive (cut off?)"
    return None if broken is None else f"was altered after it was written ({broken})"


def verify(path: str | Path) -> None:
    """Read a checkpoint once from end to end, and its structure.

    Raises:
        ConfigError: it is missing, cut off, or altered by as little as one bit; not what ``torch.save`` writes, or
            hostile.
    """
    from coopmap.models.torchfile import TorchFile

    path = Path(path)
    try:
        if not os.path.lexists(path):
            raise ConfigError(f"{path}: there is no such checkpoint")
        if path.is_file() and _identity(path) in _whole:
            return
        if (reason := damage(path)) is not None:
            raise ConfigError(f"{path}: cannot be read as a checkpoint: it {reason}")
        TorchFile(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    remember_whole(path)


def remember_whole(path: Path) -> None:
    """Take note that a file is whole as it is now."""
    _whole.add(_identity(path))


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
