"""Folders that the program fills with results, kept out of git."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_output_folder(folder: Path | str) -> Path:
    """Make a folder for results. Inside a git checkout that does not ignore it, it is told to.

    As pytest and W&B do with theirs: the outermost folder that is new gets a ``.gitignore`` that holds ``*``. A folder
    that is there already is left alone.
    """
    folder = Path(folder).expanduser()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if new and _would_be_tracked(folder):
        (new[-1] / ".gitignore").write_text("*\n")
    return folder


def _would_be_tracked(folder: Path) -> bool:
    """Whether git would offer to commit what is in the folder; false outside a checkout, or without git."""
    try:
        done = subprocess.run(["git", "check-ignore", "--quiet", "."], cwd=folder, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 1
