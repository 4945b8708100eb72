"""The code version of a run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def git_revision() -> dict[str, Any]:
    """Revision of the source tree and whether it has uncommitted changes; ``None`` outside a checkout."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=source, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    return {"git_revision": revision, "git_dirty": bool(git("status", "--porcelain")) if revision else None}
