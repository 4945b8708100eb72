"""What a check of the data is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import require, require_choice

CHECKED_SPLITS = ("all", "train", "val", "test", "test_culvercity")


@dataclass
class CheckConfig:
    """Keys of ``coopmap check`` beside those of the configuration.

    Attributes:
        split: ``all`` (those that are there; training and validation have to be) or one of them.
        samples: ``all``, or the number of frames per split, evenly spread, whose images, depth and sweeps are read;
            metadata of all frames are always read.
        output: folder for ``check.json`` and ``check.md``.
        fix_list: file to write with the frames to leave out, for ``data.exclude``.
        workers: processes to read with; null = one per core.
    """

    split: str = "all"
    samples: str = "all"
    output: str = "check"
    fix_list: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_choice("split", self.split, CHECKED_SPLITS)
        is_count = self.samples.isdecimal() and int(self.samples) > 0
        require(self.samples == "all" or is_count, "samples", self.samples, "all, or a number of frames per split")
        require(self.workers is None or self.workers >= 1, "workers", self.workers, "1 or more, or null")

    @property
    def max_frames(self) -> int | None:
        """Frames per split to read whole; ``None`` = all."""
        return None if self.samples == "all" else int(self.samples)
