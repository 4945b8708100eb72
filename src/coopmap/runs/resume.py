"""Which run a command resumes, and the folder of a new one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml

from coopmap.config import Config, ConfigError
from coopmap.config.compose import from_yaml, to_yaml
from coopmap.config.overrides import as_argument
from coopmap.config.stored_text import stored_mapping
from coopmap.runs.find import find_run
from coopmap.runs.folder import RunFolder, launched_config
from coopmap.runs.initial import check_initial, may_be_meant, with_initial_weights, with_its_initial_weights
from coopmap.runs.reader import flatten
from coopmap.runs.stored import open_checkpoint

log = logging.getLogger(__name__)

VOLATILE_KEYS = (
    "run_dir",
    "runs_root",
    "resume",
    "callbacks",
    "logger",
    "checkpoint",
    "preflight",
    "data.num_workers",
)
"""Keys that change nothing about what is learned."""

CONTINUABLE_KEYS = (*VOLATILE_KEYS, "trainer.devices", "trainer.num_nodes", "trainer.max_time", "strategy.")
"""Keys in which a run may differ from the one that it continues under ``resume=auto``: besides, on how many devices,
how these share the work and for how long at a time."""


def open_run(config: Config, overrides: Iterable[str] = ()) -> tuple[Config, RunFolder]:
    """Determine a run's folder and the checkpoint it resumes from; creates nothing and changes nothing.

    ``resume=auto`` continues ``run_dir`` if that was given and holds a checkpoint, else the newest unfinished run of
    the experiment that has one and whose configuration equals this one up to :data:`CONTINUABLE_KEYS`; else a new run
    starts. ``resume=latest``, the name of a run and its folder continue that run with its stored configuration.
    ``resume=<checkpoint>`` starts a new run from there.

    A run is continued from its last checkpoint or, if that is damaged, from the newest that is not.

    Args:
        config: as composed.
        overrides: arguments of the command line.

    Returns:
        The configuration to run with, with resolved ``run_dir`` and ``resume`` (a checkpoint or null), and the folder.

    Raises:
        ConfigError: nothing to resume at the given place, all of it is damaged, or a new run would overwrite another.
    """
    if (settled := launched_config()) is not None:
        return settled, RunFolder(Path(settled.run_dir), Path(settled.resume) if settled.resume else None)
    overrides = list(overrides)
    if config.resume_reset and config.resume in (None, "auto"):
        raise ConfigError(
            f"resume_reset=[{','.join(config.resume_reset)}]: name the run that is to go on, resume=RUN; with "
            "resume=auto it would begin anew at every restart"
        )
    check_initial(config, overrides)
    config, run = _choose_run(config, overrides)
    return replace(config, resume=str(run.resume_from) if run.resume_from else None, run_dir=str(run.path)), run


def _choose_run(config: Config, overrides: list[str]) -> tuple[Config, RunFolder]:
    run = RunFolder(Path(config.run_dir))
    if config.resume == "auto":
        given = any(override.startswith("run_dir=") for override in overrides)
        found = _continue_given(config, run) if given else _newest_continuable(config)
        if found is not None:
            return found
        log.info("resume=auto: nothing to resume, starting a new run")
    elif config.resume is not None and Path(config.resume).is_file():
        open_checkpoint(config.resume)
        _refuse_other_weights(overrides)
        run = replace(run, resume_from=Path(config.resume))
    elif config.resume is not None:
        return _continue_stored(config, overrides)
    _refuse_to_overwrite(run)
    return with_initial_weights(config), run


def _refuse_to_overwrite(run: RunFolder) -> None:
    """A folder in which a start failed may be used again: nothing in it was worth a checkpoint yet."""
    if checkpoints_of(run):
        raise ConfigError(f"run_dir={run.path}: already holds a run; resume it with resume=auto or choose another")
    if run.is_finished:
        raise ConfigError(
            f"run_dir={run.path}: already holds a finished run, whose checkpoints are gone; choose another folder"
        )


def _continue_stored(config: Config, overrides: list[str]) -> tuple[Config, RunFolder]:
    """Continue a run with its stored configuration and the changes that were asked for."""
    old = _named_run(str(config.resume), config.runs_root)
    elsewhere = [text for text in overrides if text.startswith("run_dir=")]
    if elsewhere and Path(config.run_dir).resolve() != old.path.resolve():
        raise ConfigError(
            f"resume={config.resume} {elsewhere[-1]}: a run continues in its own folder; copy the folder, or start a "
            f"new run from its checkpoint: resume={old.last_checkpoint}"
        )
    _refuse_other_weights(overrides)
    old = replace(old, resume_from=newest_whole_checkpoint(old))
    stored = settled = stored_config(old)
    _refuse_other_defaults(config, stored, overrides)
    if changes := applied(overrides):
        settled = from_yaml(to_yaml(stored), changes)
        for line in differences(stored, settled):
            log.info("resume: from here on %s", line)
    _refuse_moved_data(settled, str(config.resume))
    return settled, old


def _refuse_other_defaults(config: Config, stored: Config, overrides: list[str]) -> None:
    """Machine and preset stand for defaults of many keys, which a run has settled when it began."""
    for key in ("machine", "preset"):
        asked, began = getattr(config, key), getattr(stored, key)
        if asked != began and any(text.startswith(f"{key}=") for text in overrides):
            raise ConfigError(
                f"{key}={asked} resume={config.resume}: the run began with {key}={began}, whose settings it keeps; "
                f"leave {key} out, and change single keys, such as trainer.devices"
            )


def _refuse_moved_data(config: Config, resume: str) -> None:
    """Say how a run goes on whose data are elsewhere now; what it renders itself may be missing."""
    data = config.data
    places = {"data.root": data.root, "data.depth_root": data.depth_root, "data.cache_root": data.cache_root}
    gone = {key: place for key, place in places.items() if place and not Path(place).expanduser().exists()}
    if gone and data.town is None:
        missing = " and ".join(f"{key}={place} is not there" for key, place in gone.items())
        raise ConfigError(
            f"resume={resume}: {missing}; if the data have moved, say where to: "
            f"{as_argument('resume', resume)} {' '.join(f'{key}=NEW' for key in gone)}"
        )


def applied(overrides: Iterable[str]) -> list[str]:
    """Of the arguments of a command line, those that change the stored configuration of the run that it resumes."""
    beside = ("resume=", "machine=", "preset=", "run_dir=", "runs_root=")
    return [text for text in overrides if not text.startswith(beside)]


def _refuse_other_weights(overrides: Iterable[str]) -> None:
    for text in overrides:
        if text.startswith("model.weights") and not text.endswith("=null"):
            raise ConfigError(
                f"{text}: a run that resumes takes its weights from its checkpoint; leave one of both out"
            )


def _named_run(name: str, runs_root: str) -> RunFolder:
    try:
        return find_run(name, runs_root, key="resume")
    except ConfigError as error:
        raise ConfigError(f"{error} (expected auto, latest, a run's name, a run folder or a checkpoint file)") from None


def _continue_given(config: Config, run: RunFolder) -> tuple[Config, RunFolder] | None:
    if not checkpoints_of(run):
        return None
    run = replace(run, resume_from=newest_whole_checkpoint(run))
    stored = stored_config(run)
    for line in _changes(stored, config):
        log.warning("resume=auto: the stored configuration differs: %s", line)
    return with_its_initial_weights(config, stored), run


def _newest_continuable(config: Config) -> tuple[Config, RunFolder] | None:
    runs = [RunFolder(path.parent) for path in Path(config.runs_root, config.experiment).glob("*/checkpoints")]
    unfinished = {run: files for run in runs if not run.is_finished and (files := checkpoints_of(run))}
    for run in sorted(unfinished, key=lambda run: max(map(_written, unfinished[run])), reverse=True):
        try:
            found = replace(run, resume_from=newest_whole_checkpoint(run))
            stored = stored_config(found)
            changed = _changes(stored, config)
        except (ConfigError, OSError) as error:
            log.warning("resume=auto: passing over %s: %s", run.path, str(error).splitlines()[0])
            continue
        if not changed:
            return with_its_initial_weights(config, stored), found
        log.info("resume=auto: not resuming %s, its configuration differs: %s", run.path, "; ".join(changed))
    return None


def _changes(stored: Config, config: Config) -> list[str]:
    """:func:`differences`, where ``init_from`` is given as whatever may have led to the stored checkpoint."""
    changes = differences(stored, with_its_initial_weights(config, stored))
    name = config.init_from
    if name is not None and not may_be_meant(name, stored.init_from, config.runs_root):
        changes.append(f"init_from: {stored.init_from} -> {name}")
    return changes


def checkpoints_of(run: RunFolder) -> list[Path]:
    """All checkpoints of a run, damaged ones included; the one that training left last is first."""
    if not run.checkpoints.is_dir():
        return []
    return sorted(run.checkpoints.glob("*.ckpt"), key=lambda file: (file != run.last_checkpoint, -_written(file)))


def _written(file: Path) -> float:
    return file.lstat().st_mtime


def newest_whole_checkpoint(run: RunFolder) -> Path:
    """The last checkpoint of a run or, with a warning, the one of most steps among those that are not damaged.

    Raises:
        ConfigError: it has none.
    """
    reasons: list[str] = []
    whole: list[tuple[int, Path]] = []
    for file in checkpoints_of(run):
        try:
            whole.append((open_checkpoint(file).step or 0, file))
        except ConfigError as error:
            reasons.append(str(error))
            continue
        if file == run.last_checkpoint:
            return file
    if not whole:
        raise ConfigError(f"{run.path}: {'; '.join(reasons) or 'there is no checkpoints/last.ckpt in it'}")
    step, newest = max(whole)
    reasons = reasons or [f"{run.last_checkpoint}: there is no such checkpoint"]
    log.warning("resume: %s; continuing from %s, step %d", "; ".join(reasons), newest.name, step)
    return newest


def stored_config(run: RunFolder) -> Config:
    """The configuration of the run; that in its checkpoint if ``config.yaml`` is missing or damaged.

    Raises:
        ConfigError: neither can be read.
    """
    assert run.resume_from is not None
    copy = str(open_checkpoint(run.resume_from).record["config"])
    try:
        text = run.read_config_text()
        expected, present = _keys(copy), _keys(text)
        lacking = expected - present
        # a section whose keys were cut off is a key of its own
        if lacking and all(any(key.startswith(f"{other}.") for key in expected) for other in present - expected):
            raise ConfigError(f"{run.config_file}: cut off, {len(lacking)} keys are missing")
    except ConfigError as error:
        log.warning("resume: %s; the configuration is taken from %s", error, run.resume_from.name)
        text = copy
    try:
        return from_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{run.config_file if text is not copy else run.resume_from}: {error}") from None


def _keys(text: str) -> set[str]:
    try:
        return set(flatten(stored_mapping(text)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not the configuration of a run ({error})") from None


def differences(stored: Config, current: Config) -> list[str]:
    """Keys in which two configurations differ, but for :data:`CONTINUABLE_KEYS`: ``optim.lr: 0.0001 -> 0.0002``."""
    before, now = (flatten(yaml.safe_load(to_yaml(config))) for config in (stored, current))
    keys = [key for key in sorted(before.keys() | now.keys()) if not key.startswith(CONTINUABLE_KEYS)]
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
