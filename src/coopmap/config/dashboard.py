"""Options of the dashboard."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError


@dataclass
class DashboardConfig:
    """Keys of ``coopmap dashboard``.

    Attributes:
        run: a run: latest, its name, or its folder.
        runs: several: run folders, folders that hold runs, patterns such as ``'runs/fusion_*'``, or names.
        wandb: instead, build the workspace and the report of a W&B project, as in ``wandb=ENTITY/PROJECT``.
        upload: save these to W&B; without, only write their specifications into ``output``.
        output: folder to write into; null: the run's folder, or the folder that holds all the runs.
        runs_root: folder in which runs are looked up by name.
    """

    run: str | None = None
    runs: list[str] = field(default_factory=list)
    wandb: str | None = None
    upload: bool = True
    output: str | None = None
    runs_root: str = "runs"

    def __post_init__(self) -> None:
        if sum((self.run is not None, bool(self.runs), self.wandb is not None)) != 1:
            raise ConfigError("give one of run=RUN, runs=RUNS and wandb=ENTITY/PROJECT")
        if self.wandb is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.wandb):
            raise ConfigError(f"wandb={self.wandb}: expected ENTITY/PROJECT, as in the address of the project")
        if not self.upload and (self.wandb is None or self.output is None):
            raise ConfigError("upload=false: goes with wandb=ENTITY/PROJECT and output=FOLDER for the specifications")
