"""Text files of a run folder, which may be somebody else's: regular files of a bounded size; no pipe is waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_RECORD_BYTES = 16_000_000
MAX_TABLE_BYTES = 1_000_000_000


def read_text(file: Path, max_bytes: int = MAX_RECORD_BYTES) -> str:
    """Content of a file.

    Raises:
        OSError: there is none, or it cannot be opened.
        ValueError: it is no regular file, larger than ``max_bytes``, or not UTF-8.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > max_bytes:
            raise ValueError(f"it has {status.st_size:,} bytes, expected at most {max_bytes:,}")
        with open(descriptor, encoding="utf-8", newline="", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(descriptor)
