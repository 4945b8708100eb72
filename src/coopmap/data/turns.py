"""Processes that want the same file in the cache folder: one makes it, the others wait and find it."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


@contextmanager
def first_come(path: Path) -> Iterator[None]:
    """Within the context this process makes a file, or has waited for the one that did: look for it inside.

    Who has waited goes on without a turn of its own. If the file is not there then, it cannot be written or its maker
    was killed: better that all make it side by side than one after the other.

    A POSIX lock beside the file, as on run folders: the system drops it when the process ends in whatever way, loader
    processes do not inherit it, and NFS passes it on. Without locks, or a folder that can be written, nobody waits.
    """
    lock = path.with_suffix(".lock")
    file = _turn(lock)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                lock.unlink()
            file.close()


def _turn(lock: Path) -> IO[str] | None:
    """The open file that carries the lock of this process; ``None`` if it has none, or has waited."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError:  # whoever writes the file beside it says so
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except (BlockingIOError, PermissionError):  # the two ways to say that another process has it
        log.info("%s: waiting for the process that makes what it belongs to", lock)
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass
    file.close()
    return None
