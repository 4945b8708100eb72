"""Arrays kept in a folder for later runs: written whole or not at all, and taken for lost when damaged in any way."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

MAX_BYTES = 4_000_000_000


def store_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an ``.npz``, atomically; a folder that cannot be written to costs a warning, and time in the next run."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        log.warning("%s cannot be written (%s): what it would hold is made again each time", path, error.strerror)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def load_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray] | None:
    """Arrays of a file that :func:`store_arrays` wrote; ``None`` if there is none, or it is damaged, with a warning."""
    try:
        if not path.is_file():  # a pipe would be waited for
            if os.path.lexists(path):
                log.warning("%s is no file; making anew what it would hold", path)
            return None
        with zipfile.ZipFile(path) as archive:
            members = {f"{name}.npy" for name in names}
            if set(archive.namelist()) != members or sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
                raise ValueError("it holds other arrays")
            if (damaged := archive.testzip()) is not None:  # headers of arrays are evaluated: not before they are right
                raise ValueError(f"wrong checksum of {damaged}")
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except Exception as error:  # of a dozen kinds, from zipfile, zlib, struct, numpy and its tokenizer
        log.warning("%s is unreadable (%s): making anew what it holds", path, error or type(error).__name__)
        return None
