"""What speaks against a source of depth, told from a few files before anything is learned from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Suspicion:
    """What speaks against a depth source.

    Attributes:
        path: a file that was looked at.
        reason: what was found, with the figure, and what was expected.
        remedy: what to do.
        is_certain: training on it would be training on something else than depth.
    """

    path: Path
    reason: str
    remedy: str
    is_certain: bool
