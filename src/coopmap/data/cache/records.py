"""LMDB files of named records, each behind a checksum."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import lmdb
import xxhash

from coopmap.data.opv2v import CorruptFrameError

_LARGEST_BYTES = 1 << 34
"""Address space for a file that is being written; it takes no room on disk or in memory."""

_OPEN_FILES = 256

_opening = threading.Lock()  # LMDB opens a file once per process; of two threads at once, one would be refused

_CHECKSUM_BYTES = 8  # a multiple of the alignment of what follows

REMEDY = "Delete it: the command that filled the cache writes it again"


class RecordWriter:
    """Appends records in transactions; a killed process leaves all those that it has committed.

    For one process at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # the claim of the shard takes the place of LMDB's own lock
        with _telling_of_a_full_disk(path, 0):
            self._file = lmdb.open(str(path), subdir=False, map_size=_LARGEST_BYTES, lock=False, readahead=False)

    def holds(self, name: str) -> bool:
        """Whether there is an undamaged record of this name."""
        with self._file.begin(buffers=True) as transaction:
            found = transaction.get(name.encode())
            return found is not None and _is_whole(found)

    def write(self, records: Mapping[str, bytes]) -> None:
        """All of the records, or none if the process is killed or the disk is full.

        Raises:
            OSError: the disk is full.
        """
        num_bytes = sum(map(len, records.values()))
        with _telling_of_a_full_disk(self.path, num_bytes), self._file.begin(write=True) as transaction:
            for name, data in records.items():
                transaction.put(name.encode(), xxhash.xxh3_64_digest(data) + data)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


@contextmanager
def _telling_of_a_full_disk(path: Path, num_bytes: int) -> Iterator[None]:
    """LMDB's errors for want of space as the system's; it calls a write that was cut short an I/O error."""
    try:
        yield
    except lmdb.Error as error:
        if isinstance(error, lmdb.DiskError) or shutil.disk_usage(path.parent).free < num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def read_record(path: Path, file_bytes: int, name: str) -> bytes | None:
    """A record of a complete file; ``None`` if there is none of this name.

    Args:
        path: the file.
        file_bytes: size that it should have.
        name: of the record.

    Raises:
        CorruptFrameError: if the file or the record is damaged.
    """
    status = check_size(path, file_bytes)
    try:
        with _opening:
            file = _opened(path, status.st_ino)
        with file.begin(buffers=True) as transaction:
            found = transaction.get(name.encode())
            if found is None:
                return None
            if not _is_whole(found):
                raise CorruptFrameError(path, f"record {name} is damaged: wrong checksum", REMEDY)
            return bytes(found[_CHECKSUM_BYTES:])
    except lmdb.Error as error:
        raise CorruptFrameError(path, f"not a readable LMDB file ({error})", REMEDY) from error


def _is_whole(found: memoryview) -> bool:
    return bytes(found[:_CHECKSUM_BYTES]) == xxhash.xxh3_64_digest(found[_CHECKSUM_BYTES:])


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: Path, file_number: int) -> lmdb.Environment:
    """Read-only, without locks: complete files never change, and network storage may have no locks."""
    return lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)


os.register_at_fork(after_in_child=_opened.cache_clear)  # LMDB's handles are of no use to a child


def check_size(path: Path, file_bytes: int) -> os.stat_result:
    """Raise CorruptFrameError unless the file has its size: reading a memory map beyond its end kills the process."""
    try:
        status = path.stat()
    except OSError:
        raise CorruptFrameError(path, "no such file, though it was complete", REMEDY) from None
    if status.st_size != file_bytes:
        raise CorruptFrameError(path, f"{status.st_size} bytes instead of {file_bytes}", REMEDY)
    return status
