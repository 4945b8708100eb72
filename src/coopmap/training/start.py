"""Checks before a run begins, so that one that cannot work fails at once and leaves nothing behind."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from coopmap.config import Config, ConfigError
from coopmap.config.machine import check_gpus
from coopmap.runs.folder import RunFolder
from coopmap.runs.lock import CHOOSE_ANOTHER, LOCK_FILE, held
from coopmap.runs.logs import is_other_rank, log_to

log = logging.getLogger(__name__)

FREE_WEIGHTS = {
    "mapanything_v1": "facebook/map-anything-apache-v1",
    "mapanything_v11": "facebook/map-anything-apache",
}
"""Of the releases in :mod:`coopmap.models.hub`, for each model the one that all may use."""
START_FILES = {"config.yaml", "starts.json", "train.log", "wandb.json", "wandb", ".gitignore", LOCK_FILE}
"""Files and folders that a run writes before it trains or validates anything."""


def check_start(config: Config, overrides: Sequence[str]) -> None:
    """Refuse a run that cannot work, without building anything.

    Args:
        config: of the run.
        overrides: the command line that led to it; empty when called from Python, where the choice counts as explicit.

    Raises:
        ConfigError: too few GPUs, or a large model that was not chosen explicitly would start from random weights.
    """
    check_gpus(config.machine, config.trainer.accelerator, config.trainer.devices)
    chosen_by = ("model=", "model.weights=", "model.encoder.", "model.info_sharing.dim=", "model.info_sharing.depth=")
    unchosen = bool(overrides) and not any(override.startswith(chosen_by) for override in overrides)
    if unchosen and _is_large(config):
        default = f"model={config.model.name}, the default, would start from random weights"
        if config.machine == "laptop":
            instead = "on the CPU: preset=demo trains a small model, on your data too"
        else:
            instead = f"and take very long to learn: set {_weights_hint(config)}"
        raise ConfigError(f"{default} {instead}; model={config.model.name} confirms it")


def _is_large(config: Config) -> bool:
    """Whether this is a released architecture without its weights."""
    return config.model.initialization == "released" and config.model.weights is None and config.resume is None


def _weights_hint(config: Config) -> str:
    released = FREE_WEIGHTS.get(config.model.name)
    place = "" if released is None else f"{released}, "
    return f"model.weights={place}a file or a checkpoint of another run (docs/weights.md)"


def report_start(config: Config) -> None:
    """Log where the weights come from, as a warning if random ones are hardly intended."""
    if is_other_rank():
        return
    if config.resume is not None:
        log.info("continuing from %s", config.resume)
        return
    if config.model.weights is not None:
        parts = ", ".join(config.model.weights_only_submodules)
        log.info("starting from the weights %s%s", config.model.weights, f" (of {parts} only)" if parts else "")
        return
    log.info("%s starts from random weights", config.model.name)
    train = config.optim.train
    hint = _weights_hint(config)
    kept = ", ".join([f"all but {', '.join(train.only)}"] if train.only else [*train.frozen, *train.lora])
    if train.tensors == "biases":
        kept = "all weight matrices"
    if kept:
        log.warning("WARNING: optim/train=%s leaves %s at random weights: set %s", train.name, kept, hint)
    elif _is_large(config):
        log.warning("WARNING: %s takes very long to learn from random weights: set %s", config.model.name, hint)


@contextmanager
def held_for_a_run(run: RunFolder) -> Iterator[None]:
    """Hold the run's folder on rank 0. A new one goes if the block fails before anything was trained or validated.

    Raises:
        ConfigError: another process holds the folder, or it cannot be written.
    """
    if is_other_rank():
        yield
        return
    missing = [path for path in (run.path, *run.path.parents) if not path.exists()]
    try:
        with held(run.path, _advice(run)):
            try:
                yield
            except BaseException:
                if missing and _holds_no_result(run.path):
                    log_to(None)  # closes the file
                    _remove_start_files(run.path)  # while no other process can begin here
                raise
    except BaseException:
        for folder in missing:
            _remove_if_empty(folder)
        raise


def _advice(run: RunFolder) -> str:
    """What to do if the folder cannot be written: a run that goes on has no other."""
    if run.resume_from is None or run.resume_from.parent != run.checkpoints:
        return CHOOSE_ANOTHER
    return (
        "a run continues in its own folder; copy the folder and resume the copy, or start a new run from its "
        f"checkpoint: resume={run.resume_from}"
    )


def _holds_no_result(folder: Path) -> bool:
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= START_FILES


def _remove_start_files(folder: Path) -> None:
    """The lock and the folder itself go last."""
    shutil.rmtree(folder / "wandb", ignore_errors=True)
    with suppress(OSError):
        for name in START_FILES - {"wandb", LOCK_FILE, ".gitignore"}:
            (folder / name).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    """Of what another process has put there in the meantime, nothing is lost."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".gitignore"}:
        with suppress(OSError):
            (folder / ".gitignore").unlink(missing_ok=True)
            folder.rmdir()
