"""The folder of a run: its paths and records."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coopmap.config import Config, ConfigError
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.config.stored_text import stored_mapping
from coopmap.report.files import write_json, write_text
from coopmap.runs.logs import is_other_rank
from coopmap.runs.outputs import make_output_folder
from coopmap.runs.provenance import git_revision
from coopmap.runs.texts import read_text

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "COOPMAP_RUN_CONFIG"
"""Passes the configuration to the processes that Lightning starts for further devices; the folder has the last one."""


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
    def starts_file(self) -> Path:
        """Command, revision and versions of every start."""
        return self.path / "starts.json"

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
        """The stored configuration, with overrides on top.

        Raises:
            ConfigError: there is none, it cannot be read, or an override is wrong.
        """
        return from_yaml(self.read_config_text(), list(overrides))

    def read_config_text(self) -> str:
        """Content of ``config.yaml``.

        Raises:
            ConfigError: there is none, or it is no configuration.
        """
        file = self.config_file
        if not os.path.lexists(file):
            raise ConfigError(f"{self.path}: not a run folder, it has no config.yaml")
        try:
            text = read_text(file)
            stored_mapping(text)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be read as the configuration of a run ({error})") from None
        return text

    def read_starts(self) -> list[dict[str, Any]]:
        """Records of all starts so far, oldest first.

        Raises:
            ConfigError: ``starts.json`` is not a list of records.
        """
        try:
            starts = json.loads(read_text(self.starts_file))
            if isinstance(starts, list) and all(isinstance(start, dict) for start in starts):
                return starts
            reason = "not a list of records"
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error)
        raise ConfigError(f"{self.starts_file}: empty, cut off or damaged ({reason})")

    def record(self, config: Config, overrides: Iterable[str]) -> None:
        """Record configuration, command, revision and versions. Rank 0 only, and a resumed run once it has loaded."""
        make_output_folder(self.path)
        self.metrics_file.unlink(missing_ok=True)  # a finished run that resumes is unfinished
        write_text(to_yaml(for_later(config)), self.config_file)
        start = {
            "time": datetime.now().isoformat(timespec="seconds"),
            "command": shlex.join(sys.orig_argv),
            "overrides": list(overrides),
            "resumed_from": str(self.resume_from) if self.resume_from else None,
            "reset": list(config.resume_reset),
            **git_revision(),
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("coopmap", "torch", "lightning")},
        }
        try:
            starts = self.read_starts()
        except ConfigError as error:
            log.warning("%s: kept as %s, a new one is begun", error, set_aside(self.starts_file).name)
            starts = []
        write_json([*starts, start], self.starts_file)


def for_later(config: Config) -> Config:
    """The configuration without what holds for this start alone."""
    return replace(config, resume_reset=[])


def set_aside(file: Path) -> Path:
    """Rename a damaged file to ``NAME.damaged.EXTENSION``, so that a new one can be begun."""
    return file.replace(file.with_name(f"{file.stem}.damaged{file.suffix}"))


@contextmanager
def handed_over(config: Config) -> Iterator[None]:
    """Give the configuration to the processes that Lightning starts for further devices in the block."""
    if is_other_rank():
        yield
        return
    os.environ[CONFIG_VARIABLE] = to_yaml(config)
    try:
        yield
    finally:
        os.environ.pop(CONFIG_VARIABLE, None)


def launched_config() -> Config | None:
    """The configuration of the run for which Lightning started this process from rank 0.

    ``None`` for what a script trains after that: rank 0 starts no processes for it.
    """
    text = os.environ.get(CONFIG_VARIABLE)
    if not text or int(os.environ.get("LOCAL_RANK", 0)) == 0:
        return None
    from torch import distributed

    return None if distributed.is_initialized() else from_yaml(text)
