"""Which run a command resumes, and the folder of a new one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml

from coopmap.config import Config, ConfigError
from coopmap.config.compose import to_yaml
from coopmap.runs.find import find_run
from coopmap.runs.folder import RunFolder, launched_run
from coopmap.runs.reader import flatten

log = logging.getLogger(__name__)

VOLATILE_KEYS = ("run_dir", "runs_root", "resume", "callbacks", "logger", "checkpoint", "data.num_workers")
"""Keys that change nothing about what is learned."""

CONTINUABLE_KEYS = (*VOLATILE_KEYS, "trainer.devices", "trainer.num_nodes")
"""Keys in which a run may differ from the one that it continues under ``resume=auto``: besides, on how many devices."""


def open_run(config: Config, overrides: Iterable[str] = ()) -> tuple[Config, RunFolder]:
    """Determine a run's folder and the checkpoint it resumes from; creates nothing.

    ``resume=auto`` continues ``run_dir`` if that was given and holds a checkpoint, else the newest unfinished run of
    the experiment that has one and whose configuration equals this one up to :data:`CONTINUABLE_KEYS`; else a new run
    starts. ``resume=latest``, the name of a run and its folder continue that run with its stored configuration.
    ``resume=<checkpoint>`` starts a new run from there.

    Args:
        config: as composed.
        overrides: arguments of the command line.

    Returns:
        The configuration to run with, with resolved ``run_dir`` and ``resume`` (a checkpoint or null), and the folder.

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
        log.info("resume=auto: nothing to resume, starting a new run")
    elif config.resume is not None and Path(config.resume).is_file():
        run = replace(run, resume_from=Path(config.resume))
    elif config.resume is not None:
        old = _named_run(config.resume, config.runs_root)
        kept = [
            text
            for text in overrides
            if not text.startswith(("resume=", "machine=", "preset=", "run_dir=", "runs_root="))
        ]
        return old.read_config(kept), replace(old, resume_from=old.last_checkpoint)
    if run.last_checkpoint.exists():
        raise ConfigError(f"run_dir={run.path}: already holds a run; resume it with resume=auto or choose another")
    return config, run


def _named_run(name: str, runs_root: str) -> RunFolder:
    try:
        old = find_run(name, runs_root, key="resume")
    except ConfigError as error:
        raise ConfigError(f"{error} (expected auto, latest, a run's name, a run folder or a checkpoint file)") from None
    if not old.last_checkpoint.exists():
        raise ConfigError(f"resume={name}: there is no checkpoints/last.ckpt in {old.path}")
    return old


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
        log.info("resume=auto: not resuming %s, its configuration differs: %s", run.path, "; ".join(changed))
    return None


def differences(stored: Config, current: Config) -> list[str]:
    """Keys in which two configurations differ, but for :data:`CONTINUABLE_KEYS`: ``optim.lr: 0.0001 -> 0.0002``."""
    before, now = (flatten(yaml.safe_load(to_yaml(config))) for config in (stored, current))
    keys = [key for key in sorted(before.keys() | now.keys()) if not key.startswith(CONTINUABLE_KEYS)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
