"""Options of the study of pose priors."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError, require_choice
from coopmap.config.evaluate import SPLITS

BOTH = ("0/0", "0.5/1", "1/2", "2/4", "3/6", "5/10", "10/10")
METERS = ("0.5/0", "1/0", "2/0", "3/0", "5/0", "10/0")
DEGREES = ("0/1", "0/2", "0/4", "0/6", "0/10")
DEFAULT_LEVELS = (*BOTH, *METERS, *DEGREES)
"""Noise as meters/degrees: both together, meters alone, degrees alone."""


@dataclass
class NoiseStudyConfig:
    """Keys of ``coopmap bench priors`` besides those of the configuration.

    Attributes:
        runs: runs that were trained with pose priors: run folders, folders that hold runs, patterns, names, or latest.
        levels: noise as meters/degrees (standard deviations), as in ``levels=0.5/1,2/4``.
        by: group runs in which these keys are equal, as in ``by=experiment``; by default, all but the seed.
        split: to evaluate on.
        output: folder to write into; null: priors, in the folder that holds all the runs.
        runs_root: folder in which runs are looked up by name.
    """

    runs: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=lambda: list(DEFAULT_LEVELS))
    by: list[str] = field(default_factory=list)
    split: str = "val"
    output: str | None = None
    runs_root: str = "runs"

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        if not self.runs:
            raise ConfigError("runs: expected run folders, as in runs=runs/four_camera")
        if not self.levels:
            raise ConfigError("levels: expected meters/degrees, as in levels=0.5/1,2/4")
