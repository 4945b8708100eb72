"""Which stored run a program opens."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import ConfigError, require


@dataclass
class RunChoice:
    """A run, or one of its checkpoints.

    Attributes:
        run: a run; its best checkpoint is taken: latest (the newest that has one), its name, or its folder.
        checkpoint: checkpoint file of a run; it carries its configuration.
        runs_root: folder in which runs are looked up by name.
    """

    run: str | None = None
    checkpoint: str | None = None
    runs_root: str = "runs"


@dataclass
class ModelChoice(RunChoice):
    """A run, one of its checkpoints, or weights alone.

    Attributes:
        weights: weights alone: hub id ``owner/name[@revision]``, file or folder.
    """

    weights: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.run, self.checkpoint, self.weights)) != 1:
            raise ConfigError("give one of run=RUN, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER")
        require(self.weights != "", "weights", "", "a hub id, a file or a folder, not an empty text")
