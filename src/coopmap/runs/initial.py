"""Whose weights a new run begins with (``init_from``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coopmap.config import Config, ConfigError
from coopmap.runs.find import LATEST, find_run
from coopmap.runs.stored import open_checkpoint


def with_initial_weights(config: Config, overrides: Sequence[str] = ()) -> Config:
    """The configuration with ``init_from`` settled: a checkpoint file, which is ``model.weights`` as well.

    Args:
        config: as composed.
        overrides: arguments of the command line.

    Raises:
        ConfigError: there is no such run or checkpoint, it is damaged, or the weights are to come from elsewhere too.
    """
    name = config.init_from
    if name is None:
        return config
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
    file = _checkpoint(name, config.runs_root)
    try:
        open_checkpoint(file)
    except ConfigError as error:
        raise ConfigError(f"init_from={name}: {error}; for weights of other kinds use model.weights") from None
    return replace(config, init_from=str(file), model=replace(config.model, weights=str(file)))


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
