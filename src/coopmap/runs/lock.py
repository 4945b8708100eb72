"""One process at a time trains in a run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from coopmap.config import ConfigError
from coopmap.report.files import FULL_DISK
from coopmap.runs.outputs import make_output_folder

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
CHOOSE_ANOTHER = "choose another with run_dir=DIR or runs_root=DIR"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(folder: Path, advice: str = CHOOSE_ANOTHER) -> Iterator[None]:
    """Hold a run folder, which is made if it is missing; leftovers of writers that were killed are removed.

    A POSIX lock: the system drops it when the process ends in whatever way, loader processes do not inherit it, and
    NFS passes it on. The file that carries it says who holds it, and goes with it.

    Args:
        folder: of the run.
        advice: what to do if it cannot be written.

    Raises:
        ConfigError: another process holds the folder, or it cannot be written.
    """
    file = folder / LOCK_FILE
    try:
        make_output_folder(folder)
        descriptor = _lock(file)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise ConfigError(f"run_dir={folder}: cannot be written ({error.strerror}); {advice}") from None
    try:
        _sweep(folder)
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _lock(file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = os.read(descriptor, 4096)
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise ConfigError(f"run_dir={file.parent}: in use by {_described(text)}") from None
            log.warning("%s: this file system has no locks; see that no other process trains there", file.parent)
            return os.open(file, os.O_RDWR)
        if _is_still(file, descriptor):
            break
        os.close(descriptor)  # its last holder has just removed it
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(_self()).encode())
    return descriptor


def _is_still(file: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), file.stat())
    return False


def _self() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
        "command": " ".join(shlex.join(sys.orig_argv).split())[:300],
    }


def _described(text: bytes) -> str:
    try:
        holder = json.loads(text)
        return (
            f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']}); "
            "wait for it, stop it, or choose another folder"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed have left."""
    for leftover in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        with suppress(OSError):
            leftover.unlink()
