"""The parts of a training run, built from its configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import lightning as L
import torch

from coopmap.config import Config, ConfigError
from coopmap.config.compose import to_yaml
from coopmap.config.machine import check_gpus
from coopmap.data import OPV2VDataModule
from coopmap.losses import build_loss
from coopmap.models import build_model, build_model_and_record
from coopmap.models.precision import computes_bf16
from coopmap.models.sources import read_record
from coopmap.runs.checkpoint_io import AtomicCheckpointIO
from coopmap.runs.folder import RunFolder, for_later
from coopmap.runs.loggers import build_loggers
from coopmap.runs.provenance import git_revision
from coopmap.runs.stored import open_checkpoint
from coopmap.training.adaptation import adapt
from coopmap.training.callbacks import (
    BestCheckpoint,
    Description,
    LastCheckpoint,
    LivePictures,
    Memory,
    ModelFacts,
    NoSignals,
    SkippedFiles,
    SkippedSteps,
    StepTiming,
    StopOnSignal,
    ValidationHistory,
    progress_callback,
)
from coopmap.training.loops import validate_at_the_end
from coopmap.training.module import PoseLearner
from coopmap.training.optim import parameter_groups
from coopmap.training.overfit import FirstBatches
from coopmap.training.strategies import build_strategy

log = logging.getLogger(__name__)

IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",  # its position is part of the datamodule's state
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*dirpath has changed from.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*`broadcast_buffers` is deprecated.*",  # its successor is too new
    ".*It is recommended to use .*sync_dist=True.*",  # metrics are reduced before they are logged
)


def build_module(config: Config) -> PoseLearner:
    """Model, objective and optimization, wired together.

    A resumed run gets its weights and their record from the checkpoint, not from
    ``model.weights``.
    """
    record: dict[str, Any] = {"config": to_yaml(for_later(config)), **git_revision(), "weights": None}
    if config.resume is None:
        model, record["weights"] = build_model_and_record(config)
    else:
        model = build_model(replace(config, model=replace(config.model, weights=None)))
        with suppress(ValueError):  # the trainer reads the checkpoint itself and reports errors
            record["weights"] = read_record(config.resume)
    adapt(model, config.optim.train)
    parameter_groups(model, config.optim)  # a wrong name in optim.lr_of ends the run before anything is computed
    return PoseLearner(model, build_loss(config), config.optim, config.seed, record, config.task, config.priors)


def build_datamodule(config: Config) -> OPV2VDataModule:
    """The data; with ``trainer.overfit_batches``, only its first batches, for training and validation."""
    if not config.data.root:
        raise ConfigError("data.root is not set: give data.root=/path/to/opv2v, or data=town for the synthetic town")
    batches = config.trainer.overfit_batches
    if not batches:
        return OPV2VDataModule(config.data, config.seed, config.task, config.priors, config.length)
    if not isinstance(batches, int):
        raise ConfigError(f"trainer.overfit_batches={batches}: expected a number of batches")
    return FirstBatches(config, batches)


def build_callbacks(
    config: Config, run: RunFolder, extra: Sequence[L.Callback] = ()
) -> tuple[ValidationHistory, list[L.Callback]]:
    """All callbacks, and the one among them that holds the validation metrics."""
    history = ValidationHistory()
    best = BestCheckpoint(run.best_checkpoint, config.checkpoint.monitor)
    last = LastCheckpoint(run.last_checkpoint, config.checkpoint)  # after `best`, whose state it keeps
    callbacks = [
        *extra,
        history,
        Description(),
        ModelFacts(run.path / "model.json"),
        SkippedFiles(),
        SkippedSteps(run.path / "skipped"),
        StepTiming(),
        Memory(),
        LivePictures(run.path, config.callbacks, config.checkpoint.monitor),
        StopOnSignal(config.trainer.max_seconds, last),
        progress_callback(config),
        best,
        last,
    ]
    return history, [callback for callback in callbacks if callback is not None]


def build_trainer(config: Config, run: RunFolder, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's trainer with ``config.trainer`` passed on, which validates at the end in any case."""
    trainer = new_trainer(
        **trainer_options(config),
        logger=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.path,
    )
    say_precision(trainer, config)
    validate_at_the_end(trainer)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        start_step = 0 if run.resume_from is None else open_checkpoint(run.resume_from).step or 0
        trainer.loggers = build_loggers(config, run.path, start_step)  # last: W&B shows no run that Lightning refuses
    return trainer


def new_trainer(**options: Any) -> L.Trainer:
    """Lightning's trainer; ours are the samplers, what signals do, and the progress.

    Raises:
        ConfigError: Lightning refuses an option; it names which.
    """
    try:
        # the datamodule's samplers are distributed already; callbacks.progress replaces Lightning's bar
        trainer = L.Trainer(**options, use_distributed_sampler=False, enable_progress_bar=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error
    trainer._signal_connector = NoSignals(trainer)
    return trainer


def trainer_options(config: Config) -> dict[str, Any]:
    """Arguments for Lightning's trainer; null ones are left to Lightning."""
    for pattern in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    config.settle_strategy()  # it may have been set in Python, after the configuration was checked
    options = {name: value for name, value in asdict(config.trainer).items() if value is not None}
    options.pop("overfit_batches", None)  # handled by build_datamodule: batches are drawn anew in each epoch
    options.pop("max_time", None)  # handled by StopOnSignal: Lightning would call such a run complete
    check_gpus(config.machine, options["accelerator"], options["devices"], torch.cuda.device_count())
    kind = "cuda" if torch.cuda.is_available() and options["accelerator"] != "cpu" else "cpu"
    if options.get("precision") == "bf16-mixed" and not computes_bf16(kind):
        options["precision"] = "32-true"
    options["strategy"] = build_strategy(config.strategy, options)
    return options


def say_precision(trainer: L.Trainer, config: Config) -> None:
    """Say where it is another than was asked for."""
    if config.trainer.precision == "bf16-mixed" != trainer.precision:
        log.info("bf16 is not among this machine's instructions: computing in float32")


def in_one_piece(module: PoseLearner, config: Config) -> PoseLearner:
    """The module, for one rank to work with alone: on rank 0 with whole parameters. Call it on all ranks."""
    if module.device_mesh is None:
        return module
    from coopmap.training.fully_sharded import gathered

    state = gathered(module.state_dict(), keep=module.global_rank == 0)
    if not state:
        return module
    whole = build_module(replace(config, resume=None, model=replace(config.model, weights=None)))
    whole.load_state_dict(state)
    whole.baseline, whole.record = module.baseline, module.record
    return whole


def validate_best(
    trainer: L.Trainer, module: PoseLearner, datamodule: L.LightningDataModule, run: RunFolder
) -> dict[str, float]:
    """Metrics of the best checkpoint, measured from the file; the module then holds its weights."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return {}
    exists = run.best_checkpoint.exists()
    if not trainer.strategy.reduce_boolean_decision(exists):  # all measure it, or none
        if exists:
            log.warning("%s: not there for all ranks, so it is not measured again", run.best_checkpoint)
        return {}
    step = open_checkpoint(run.best_checkpoint).step or 0
    log.info("measuring the best checkpoint again (step %d)", step)
    loggers, trainer.loggers = trainer.loggers, []
    try:
        figures = trainer.validate(module, datamodule=datamodule, ckpt_path=run.best_checkpoint, verbose=False)
    finally:
        trainer.loggers = loggers
    return {"step": step, **{name: float(value) for name, value in figures[0].items()}}
