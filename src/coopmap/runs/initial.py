"""Whose weights a new run begins with (``init_from``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coopmap.config import Config, ConfigError
from coopmap.runs.find import LATEST, find_run
from coopmap.runs.stored import open_checkpoint


def check_initial(config: Config, overrides: Sequence[str] = ()) -> None:
    """See that ``init_from`` does not contradict what else is asked for.

    Args:
        config: as composed.
        overrides: arguments of the command line.

    Raises:
        ConfigError: it does.
    """
    name = config.init_from
    if name is None:
        return
    if config.resume not in (None, "auto"):
        raise ConfigError(
            f"init_from={name} resume={config.resume}: init_from begins a new run with the weights alone, resume goes "
            "on with everything; leave one of both out"
        )
    if config.resume == "auto" and name == LATEST:
        raise ConfigError(
            "init_from=latest resume=auto: the latest run may be the one that goes on; name the run with the weights"
        )
    for text in overrides:
        if text.startswith("model.weights=") and not text.endswith("=null"):
            raise ConfigError(f"init_from={name} {text}: both say whose weights to begin with; leave one of both out")


def with_initial_weights(config: Config) -> Config:
    """The configuration of a new run with ``init_from`` settled: a checkpoint file, which is ``model.weights`` as well.

    Raises:
        ConfigError: there is no such run or checkpoint, or it is damaged.
    """
    name = config.init_from
    if name is None:
        return config
    file = _checkpoint(name, config.runs_root)
    try:
        open_checkpoint(file)
    except ConfigError as error:
        raise ConfigError(f"init_from={name}: {error}; for weights of other kinds use model.weights") from None
    return replace(config, init_from=str(file), model=replace(config.model, weights=str(file)))


def with_its_initial_weights(config: Config, stored: Config) -> Config:
    """The configuration with the weights that a stored one began with, where ``init_from`` is given.

    A run that goes on has had them. The run that they came from may be gone by now, or have a better checkpoint.
    """
    if config.init_from is None:
        return config
    return replace(config, init_from=stored.init_from, model=replace(config.model, weights=stored.model.weights))


def may_be_meant(name: str, settled: str | None, runs_root: str) -> bool:
    """Whether ``init_from=name`` can have led to a checkpoint when its run began. Only names are compared: the
    checkpoint may be gone by now, and other runs have come to the name.

    Args:
        name: as given now.
        settled: the checkpoint that a run began with; ``None`` if it began with none.
        runs_root: folder in which runs are looked up by name.
    """
    if settled is None:
        return False
    run = Path(settled).absolute().parent.parent
    experiment, root = run.parent, run.parent.parent
    if Path(name).resolve() in {place.resolve() for place in (Path(settled), run, experiment, root)}:
        return True
    names = (run.name, experiment.name, f"{experiment.name}/{run.name}")
    return name.strip("/") in names and root.resolve() == Path(runs_root).resolve()


def _checkpoint(name: str, runs_root: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    try:
        run = find_run(name, runs_root, key="init_from")
    except ConfigError as error:
        raise ConfigError(f"{error} (expected latest, a run's name, a run folder or a checkpoint file)") from None
    for file in (run.best_checkpoint, run.last_checkpoint):
        if file.is_file():
            return file
    raise ConfigError(
        f"init_from={name}: there is no checkpoint in {run.path} yet; for weights of other kinds use model.weights"
    )
