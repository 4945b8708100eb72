"""Output folders: ignored by git, and without what an earlier run of the same command left there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.report.files import write_text


def check_output_folder(key: str, folder: Path | str) -> None:
    """Before long work, see that its results can be written; makes nothing.

    Raises:
        ConfigError: a file is in the way, or the folder, or the one that it would be made in, cannot be written to.
    """
    _check_writable(Path(folder).expanduser().absolute(), f"{key}={folder}")


def check_output_file(key: str, file: Path | str) -> None:
    """The same for a single file.

    Raises:
        ConfigError: it is a folder, or cannot be written.
    """
    place = Path(file).expanduser().absolute()
    if place.is_dir():
        raise ConfigError(f"{key}={file}: is a folder; expected a file")
    _check_writable(place.parent, f"{key}={file}")


def _check_writable(folder: Path, said: str) -> None:
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"{said}: {there} is a file; expected a folder, or a name for a new one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{said}: {there} cannot be written to; choose another folder")


def make_output_folder(folder: Path | str) -> Path:
    """Create an output folder, and make a surrounding git checkout ignore it.

    As pytest and W&B do: the outermost new folder gets a ``.gitignore`` that contains ``*``. An existing folder is not
    changed.
    """
    folder = Path(folder).expanduser()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if new and _would_be_tracked(folder):
        (new[-1] / ".gitignore").write_text("*\n")
    return folder


def replace_outputs(folder: Path, command: str, files: Iterable[Path]) -> None:
    """Delete what a command wrote into a folder before and did not write again: its results are those of one run.

    To be called when all files are written. Which ones are the command's own stands in ``.COMMAND.files``; no other
    file is touched, and folders only if they become empty.

    Args:
        folder: that holds the files.
        command: that wrote them.
        files: all that it wrote now, in the folder or below it.
    """
    record, root = folder / f".{command}.files", folder.resolve()
    written = {file.relative_to(folder).as_posix() for file in files}
    before = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    for name in set(before) - written:
        file = folder / name
        if file.is_file() and file.parent.resolve().is_relative_to(root):  # a changed record leads nowhere else
            file.unlink()
            _remove_empty(file.parent, folder)
    write_text("".join(f"{name}\n" for name in sorted(written)), record)


def _remove_empty(inner: Path, folder: Path) -> None:
    """Remove folders below ``folder``, from the innermost, as long as they are empty."""
    with contextlib.suppress(OSError):
        while inner != folder:
            inner.rmdir()
            inner = inner.parent


def _would_be_tracked(folder: Path) -> bool:
    """Whether git would track the folder's files; false outside a checkout, or without git."""
    try:
        done = subprocess.run(["git", "check-ignore", "--quiet", "."], cwd=folder, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 1
