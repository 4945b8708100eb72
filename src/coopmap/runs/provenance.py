"""The code version of a run."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def git_revision() -> Mapping[str, Any]:
    """Revision of the source tree and whether it has uncommitted changes; ``None`` outside a checkout of it.

    Asked once: later commits and edits are not what this process runs.
    A wheel may be installed below somebody else's repository, whose revision says nothing about this package.
    """
    source = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=source, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    is_ours = top is not None and Path(top).resolve() / "src" / source.name == source
    is_ours = is_ours and git("ls-files", "--error-unmatch", "__init__.py") is not None
    revision = git("rev-parse", "HEAD") if is_ours else None
    return {"git_revision": revision, "git_dirty": bool(git("status", "--porcelain")) if revision else None}
