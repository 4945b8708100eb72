"""The folder of a run: its paths and records."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from coopmap.config import Config, ConfigError
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.report.files import write_json, write_text
from coopmap.runs.outputs import make_output_folder
from coopmap.runs.provenance import git_revision

log = logging.getLogger(__name__)

RUN_DIR_VARIABLE = "COOPMAP_RUN_DIR"
"""Passes the run folder to the processes that Lightning starts for further devices."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run.

    Attributes:
        path: the folder.
        resume_from: checkpoint that training continues from, or ``None``.
    """

    path: Path
    resume_from: Path | None = None

    @property
    def config_file(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``best.ckpt`` and ``last.ckpt``."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """Training can always resume from this one."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Lowest monitored validation metric so far."""
        return self.checkpoints / "best.ckpt"

    @property
    def metrics_file(self) -> Path:
        """Final metrics; written when the run is finished."""
        return self.path / "metrics.json"

    @property
    def matches_file(self) -> Path:
        """Picture of what the model matches, if it does."""
        return self.path / "matches.png"

    @property
    def is_finished(self) -> bool:
        """Whether training ran to completion."""
        return self.metrics_file.exists()

    def read_config(self, overrides: Iterable[str] = ()) -> Config:
        """The stored configuration, with overrides on top."""
        if not self.config_file.is_file():
            raise ConfigError(f"{self.path}: not a run folder, it has no config.yaml")
        return from_yaml(self.config_file.read_text(), list(overrides))

    def record(self, config: Config, overrides: Iterable[str]) -> None:
        """Record configuration, command, revision and versions. Rank 0 only."""
        make_output_folder(self.path)
        # left by a run that was killed while writing
        for leftover in (*self.path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
            leftover.unlink(missing_ok=True)
        self.metrics_file.unlink(missing_ok=True)  # a finished run that resumes is unfinished
        write_text(to_yaml(config), self.config_file)
        start = {
            "time": datetime.now().isoformat(timespec="seconds"),
            "command": shlex.join(sys.orig_argv),
            "overrides": list(overrides),
            "resumed_from": str(self.resume_from) if self.resume_from else None,
            **git_revision(),
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("coopmap", "torch", "lightning")},
        }
        file = self.path / "starts.json"
        starts = json.loads(file.read_text()) if file.exists() else []
        write_json([*starts, start], file)
        os.environ[RUN_DIR_VARIABLE] = str(self.path)


def launched_run() -> RunFolder | None:
    """The run for which Lightning started this process from rank 0; its stored configuration has all settings."""
    path = os.environ.get(RUN_DIR_VARIABLE)
    return RunFolder(Path(path)) if path and int(os.environ.get("LOCAL_RANK", 0)) > 0 else None
