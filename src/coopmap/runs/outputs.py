"""Output folders, ignored by git."""

from __future__ import annotations

import subprocess
from pathlib import Path


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


def _would_be_tracked(folder: Path) -> bool:
    """Whether git would track the folder's files; false outside a checkout, or without git."""
    try:
        done = subprocess.run(["git", "check-ignore", "--quiet", "."], cwd=folder, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 1
