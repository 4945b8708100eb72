"""Atomic writes: a killed job leaves the old file or the new one, never a partial one."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = (*FULL_DISK, errno.EFBIG)
"""A full disk, and a file larger than the file system or ``ulimit -f`` allows."""


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary path to write to; when the block succeeds, its content is on the disk as ``file``.

    Missing parent folders are created. Leftovers of killed processes are named ``.NAME.PID.tmp``.

    Raises:
        OSError: it cannot be written; for want of room with the file's name.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with naming(file):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(file.parent)  # makes the rename itself durable


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Give errors for want of room the name of the file, which writing to an open file, or closing it, leaves out."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:
            error.filename = str(file)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(text: str, file: Path) -> None:
    """Write UTF-8."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(content: bytes, file: Path) -> None:
    """Write a file in place, or raise with its name."""
    with naming(file):
        file.write_bytes(content)


def write_npy(array: np.ndarray, file: Path) -> None:
    """Write an array as ``np.save`` does, whose error on a full disk is none of the system's and names no file."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(buffer.getvalue(), file)


def write_json(content: Mapping[str, Any] | Sequence[Any], file: Path) -> None:
    """Write JSON that every parser accepts: NaN and infinity become null."""
    write_text(json.dumps(finite(content), indent=2) + "\n", file)


def finite(node: Any) -> Any:
    """Content for JSON, with ``None`` for NaN and infinity, which it does not have."""
    if isinstance(node, Mapping):
        return {key: finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [finite(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def write_csv(rows: Iterable[Mapping[str, Any]], file: Path, columns: Sequence[str] | None = None) -> None:
    """Write rows, with the columns that ``columns`` lists, by default all that any row has."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
