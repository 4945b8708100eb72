"""The folder of a run: where it is, what it continues, what is recorded in it."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from coopmap.config import Config, ConfigError
from coopmap.config.compose import from_yaml, to_yaml

log = logging.getLogger(__name__)

RUN_DIR_VARIABLE = "COOPMAP_RUN_DIR"
"""Tells processes that Lightning starts for further devices which run they belong to."""

VOLATILE_KEYS = ("run_dir", "runs_root", "resume", "callbacks", "logger", "checkpoint", "data.num_workers")
"""Keys in which a run may differ from the one that it continues under ``resume=auto``."""


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
        """Training can always be continued from this one."""
        return self.checkpoints / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """Lowest monitored validation figure so far."""
        return self.checkpoints / "best.ckpt"

    @property
    def metrics_file(self) -> Path:
        """Final figures; its presence says that the run is finished."""
        return self.path / "metrics.json"

    @property
    def is_finished(self) -> bool:
        """Whether training went to its end."""
        return self.metrics_file.exists()

    def read_config(self, overrides: Iterable[str] = ()) -> Config:
        """The stored configuration, with overrides on top."""
        if not self.config_file.is_file():
            raise ConfigError(f"{self.path}: not a run folder, it has no config.yaml")
        return from_yaml(self.config_file.read_text(), list(overrides))

    def record(self, config: Config, overrides: Iterable[str]) -> None:
        """Write down configuration, command, revision and versions. Rank 0 only."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.checkpoints.glob(".*.tmp"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        self.metrics_file.unlink(missing_ok=True)  # a finished run that goes on is unfinished
        self.config_file.write_text(to_yaml(config))
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
        file.write_text(json.dumps([*starts, start], indent=2) + "\n")
        os.environ[RUN_DIR_VARIABLE] = str(self.path)


def find_checkpoint(run: str | None, checkpoint: str | None) -> Path:
    """The checkpoint that a program is asked to take: a file, or the best one of a run, if need be its last.

    Raises:
        ConfigError: not exactly one of them is given, or there is no such run folder.
    """
    if (run is None) == (checkpoint is None):
        raise ConfigError("give either run=RUN_FOLDER or checkpoint=FILE")
    if run is None:
        return Path(str(checkpoint))
    folder = RunFolder(Path(run))
    if not folder.path.is_dir():
        raise ConfigError(f"run={run}: there is no such folder")
    return folder.best_checkpoint if folder.best_checkpoint.exists() else folder.last_checkpoint


def launched_run() -> RunFolder | None:
    """The run that this process was started for by Lightning in rank 0; its stored configuration says all."""
    path = os.environ.get(RUN_DIR_VARIABLE)
    return RunFolder(Path(path)) if path and int(os.environ.get("LOCAL_RANK", 0)) > 0 else None


def open_run(config: Config, overrides: Iterable[str] = ()) -> tuple[Config, RunFolder]:
    """Find out where a run lives and what it continues; creates nothing.

    ``resume=auto`` continues ``run_dir`` if that was given and holds a checkpoint, else the newest unfinished run of
    the experiment that has one and whose configuration equals this one up to :data:`VOLATILE_KEYS`; else a new run
    starts. ``resume=<run folder>`` continues that run with its stored configuration. ``resume=<checkpoint>`` starts a
    new run that goes on from there.

    Args:
        config: as composed.
        overrides: what was asked for on the command line.

    Returns:
        The configuration to run with, its ``run_dir`` and ``resume`` (a checkpoint or null) settled, and the folder.

    Raises:
        ConfigError: nothing to resume at the given place, or a new run would overwrite another.
    """
    if (launched := launched_run()) is not None:
        return config, replace(launched, resume_from=Path(config.resume) if config.resume else None)
    config, run = _choose_run(config, list(overrides))
    return replace(config, resume=str(run.resume_from) if run.resume_from else None, run_dir=str(run.path)), run


def _choose_run(config: Config, overrides: list[str]) -> tuple[Config, RunFolder]:
    run = RunFolder(Path(config.run_dir))
    if config.resume == "auto":
        given = any(override.startswith("run_dir=") for override in overrides)
        found = _continue_given(config, run) if given else _newest_continuable(config)
        if found is not None:
            return config, replace(found, resume_from=found.last_checkpoint)
        log.info("resume=auto: nothing to continue, a new run starts")
    elif config.resume is not None and Path(config.resume).is_dir():
        old = RunFolder(Path(config.resume))
        if not old.last_checkpoint.exists():
            raise ConfigError(f"resume={config.resume}: there is no checkpoints/last.ckpt in that folder")
        kept = [text for text in overrides if not text.startswith(("resume=", "machine=", "run_dir="))]
        return old.read_config(kept), replace(old, resume_from=old.last_checkpoint)
    elif config.resume is not None:
        checkpoint = Path(config.resume)
        if not checkpoint.is_file():
            raise ConfigError(f"resume={config.resume}: expected auto, a run folder or a checkpoint file")
        run = replace(run, resume_from=checkpoint)
    if run.last_checkpoint.exists():
        raise ConfigError(f"run_dir={run.path}: holds a run already; continue it with resume=auto or choose another")
    return config, run


def _continue_given(config: Config, run: RunFolder) -> RunFolder | None:
    if not run.last_checkpoint.exists():
        return None
    for line in differences(run.read_config(), config):
        log.warning("resume=auto: the stored configuration differs: %s", line)
    return run


def _newest_continuable(config: Config) -> RunFolder | None:
    folders = Path(config.runs_root, config.experiment).glob("*/checkpoints/last.ckpt")
    for checkpoint in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        run = RunFolder(checkpoint.parents[1])
        if run.is_finished:
            continue
        if not (changed := differences(run.read_config(), config)):
            return run
        log.info("resume=auto: not continuing %s, its configuration differs: %s", run.path, "; ".join(changed))
    return None


def differences(stored: Config, current: Config) -> list[str]:
    """Keys in which two configurations differ, the volatile ones left out: ``optim.lr: 0.0001 -> 0.0002``."""
    before, now = _flat(stored), _flat(current)
    keys = [key for key in sorted(before.keys() | now.keys()) if not key.startswith(VOLATILE_KEYS)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _flat(config: Config) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else str(key), value)
        else:
            flat[prefix] = node

    visit("", OmegaConf.to_container(OmegaConf.structured(config), resolve=True))
    return flat


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


def is_other_rank() -> bool:
    """Whether this process is not the first of a distributed run, as far as its launcher has told it."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


class _Stdout(logging.StreamHandler):
    """Looks standard output up at each line, so that a live progress bar can stand below the log."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


def log_to(file: Path | None) -> None:
    """Send the program's log to standard output and to a file; ranks above 0 only warn."""
    root = logging.getLogger("coopmap")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING if is_other_rank() else logging.INFO)
    root.propagate = False
    handlers: list[logging.Handler] = [_Stdout()]
    if file is not None and not is_other_rank():
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(file))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
