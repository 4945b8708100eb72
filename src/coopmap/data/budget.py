"""Unreadable frames: each is reported once, too many end the run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

log = logging.getLogger(__name__)

SHOWN = 10


class BadFrameBudgetError(RuntimeError):
    """More files are unreadable than ``data.bad_frame_budget`` allows."""


class BadFrameBudget:
    """Counts distinct unreadable files of one split.

    Args:
        split: its name, for messages.
        num_frames: size of the split.
        share: share of the frames that may be unreadable; unless it is 0, one may be in a split of any size.
        least: how many that is, where it is not one.
    """

    def __init__(self, split: str, num_frames: int, share: float, least: int = 1) -> None:
        self.split, self.allowed = split, max(math.floor(share * num_frames), least if share > 0 else 0)
        self.num_frames = num_frames
        self.culprits: dict[str, None] = {}

    def report(self, skipped: Iterable[str]) -> None:
        """Log new culprits.

        Raises:
            BadFrameBudgetError: if there are more than allowed; names the first of them.
        """
        for culprit in skipped:
            if culprit not in self.culprits:
                self.culprits[culprit] = None
                log.warning("skipped (%d of at most %d): %s", len(self.culprits), self.allowed, culprit)
        if len(self.culprits) > self.allowed:
            shown = "\n  ".join(list(self.culprits)[:SHOWN])
            raise BadFrameBudgetError(
                f"{len(self.culprits)} files of split {self.split!r} ({self.num_frames} frames) are unreadable, "
                f"data.bad_frame_budget allows {self.allowed}:\n  {shown}\n"
                "Repair them, or raise data.bad_frame_budget to go on without these frames"
            )
