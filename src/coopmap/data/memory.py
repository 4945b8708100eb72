"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for this process; nothing happens where another C library is in use.

    Left to itself it hands large arrays back to the system and fetches the next page by page, which takes a tenth of
    the time of making a sample.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
