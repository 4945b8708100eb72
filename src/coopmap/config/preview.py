"""What a preview is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coopmap.config.checks import ConfigError, require_choice
from coopmap.config.evaluate import SPLITS

_RANGE = re.compile(r"(-?\d+)|(-?\d*):(-?\d*)(?::(-?\d*))?")


@dataclass
class PreviewConfig:
    """Keys of ``coopmap preview`` beside those of the configuration.

    Attributes:
        split: whose samples to show.
        index: a sample of the split, or several as in Python, ``0:200:10``: a page each, and a contact sheet.
        augment: show a sample as training draws and augments it; without, all agents in range, as they are.
        output: folder for pages and pictures.
    """

    split: str = "train"
    index: str = "0"
    augment: bool = False
    output: str | None = None

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        match = _RANGE.fullmatch(self.index)
        if match is None or (match[4] and int(match[4]) == 0):
            raise ConfigError(f"index={self.index}: expected a number, or START:STOP:STEP such as 0:200:10")
        if self.output is None:
            raise ConfigError("give output=FOLDER for the pages")

    @property
    def is_sheet(self) -> bool:
        """Whether several samples are asked for."""
        return ":" in self.index

    def positions(self, count: int) -> list[int]:
        """The samples asked for, of ``count``; negative numbers count from the end.

        Raises:
            ConfigError: there is none.
        """
        if self.is_sheet:
            chosen = list(range(count))[slice(*(int(part) if part else None for part in self.index.split(":")))]
        else:
            position = int(self.index)
            chosen = [position % count] if -count <= position < count else []
        if not chosen:
            raise ConfigError(f"index={self.index}: split {self.split} has samples 0 to {count - 1}")
        return chosen
