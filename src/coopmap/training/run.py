"""One training from start to end: build, fit, measure the best checkpoint, write down what came out."""

from __future__ import annotations

import logging
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L

from coopmap.config import Config
from coopmap.data import OPV2VDataModule
from coopmap.models.compilation import compile_blocks
from coopmap.report.files import write_json
from coopmap.runs.folder import RunFolder, handed_over
from coopmap.runs.loggers import closed_at_the_end
from coopmap.runs.logs import is_other_rank, log_to
from coopmap.runs.metrics_file import read_metrics
from coopmap.runs.next_steps import print_next_steps
from coopmap.runs.provenance import git_revision
from coopmap.runs.summary import HEADLINES, print_summary, summarize, warn_if_worse_than_at_first
from coopmap.training.assembly import (
    build_callbacks,
    build_datamodule,
    build_module,
    build_trainer,
    in_one_piece,
    validate_best,
)
from coopmap.training.callbacks import LoaderError, StopOnSignal, ValidationHistory
from coopmap.training.callbacks.stop_signal import explained, is_loader_failure
from coopmap.training.continuing import RecordStart, check_resumable
from coopmap.training.module import NonFiniteError, PoseLearner
from coopmap.training.pictures import write_example
from coopmap.training.start import held_for_a_run, report_start
from coopmap.training.teacher import build_teacher
from coopmap.viz.run_curves import write_run_curves

log = logging.getLogger("coopmap.train")

CHILD_SECONDS = 20
"""Time that other ranks have to end by themselves."""


@dataclass
class TrainingResult:
    """What a run produced.

    Attributes:
        config: as it ran.
        run: its folder.
        trainer, module, datamodule: in their final state; the module holds the best weights.
        validations: figures of every validation, in order.
        summary: content of ``metrics.json``.
    """

    config: Config
    run: RunFolder
    trainer: L.Trainer
    module: PoseLearner
    datamodule: OPV2VDataModule
    validations: list[dict[str, float]]
    summary: dict[str, Any]


TryOut = Callable[[RunFolder, L.Trainer, PoseLearner, OPV2VDataModule], None]
"""What tries out the parts of a run before it begins."""


def run_training(
    config: Config,
    run: RunFolder,
    overrides: Sequence[str],
    callbacks: Sequence[L.Callback],
    started: float,
    try_out: TryOut | None = None,
) -> TrainingResult:
    """Run one training in a folder that was chosen for it; see :func:`coopmap.train.train`.

    Args:
        config: with ``run_dir`` and ``resume`` settled.
        run: the folder.
        overrides: the command line that led here, for the record.
        callbacks: further ones, called first.
        started: when the program began, on the monotonic clock.
        try_out: called with all parts before the first of them is used.
    """
    with held_for_a_run(run), handed_over(config):
        log_to(run.path / "train.log", hold_back=run.resume_from is not None)
        log.info("%s on machine=%s, run folder %s", config.experiment, config.machine, run.path)
        start = RecordStart(run, config, overrides)
        if not is_other_rank() and run.resume_from is None:
            start.record()
        trainer, module, datamodule, history = build(config, run, [start, *callbacks])
        with closed_at_the_end(trainer.loggers), ranks_end_together(trainer):
            if try_out is not None:
                try_out(run, trainer, module, datamodule)
            fit(trainer, module, datamodule, config, run)
            if not is_other_rank() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                start.record()  # of a run that had all its steps
            return finish(config, run, trainer, module, datamodule, history, started)


@contextmanager
def ranks_end_together(trainer: L.Trainer) -> Iterator[None]:
    """When this process ends early, so do those that it started; and a dead loader process is named in one line."""
    try:
        yield
    except BaseException as error:
        children: Sequence[subprocess.Popen] = getattr(trainer.strategy.launcher, "procs", ())
        agreed = getattr(error, "at_step_boundary", False)
        for child in children:
            if not agreed:
                child.terminate()
        for child in children:
            try:
                child.wait(CHILD_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        if is_loader_failure(error) and not isinstance(error, LoaderError):
            raise LoaderError(explained(str(error) or type(error).__name__)) from None
        raise
    finally:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StopOnSignal):
                callback.close()


def build(
    config: Config, run: RunFolder, callbacks: Sequence[L.Callback]
) -> tuple[L.Trainer, PoseLearner, OPV2VDataModule, ValidationHistory]:
    """All parts of a run; what cannot work ends it here."""
    module, datamodule = build_learner(config, run)
    history, all_callbacks = build_callbacks(config, run, callbacks)
    return build_trainer(config, run, all_callbacks), module, datamodule, history


def build_learner(config: Config, run: RunFolder) -> tuple[PoseLearner, OPV2VDataModule]:
    """What learns, and what from."""
    report_start(config)
    datamodule = build_datamodule(config)
    datamodule.check()
    L.seed_everything(config.seed, verbose=False)
    module = build_module(config)
    if run.resume_from is not None:
        check_resumable(run, module, datamodule, config)
    if config.model.compile:
        compile_blocks(module)
    module.teacher = build_teacher(config)
    return module, datamodule


def finish(
    config: Config,
    run: RunFolder,
    trainer: L.Trainer,
    module: PoseLearner,
    datamodule: OPV2VDataModule,
    history: ValidationHistory,
    started: float,
) -> TrainingResult:
    """Measure the best checkpoint and write down what came out."""
    validations = list(history.entries)  # loading a checkpoint takes callbacks back as well
    best = validate_best(trainer, module, datamodule, run)
    module = in_one_piece(module, config)
    summary = {
        "experiment": config.experiment,
        "seed": config.seed,
        "steps": trainer.global_step,
        "seconds": round(time.monotonic() - started, 1),
        **git_revision(),
        "weights": module.record["weights"],
        **summarize(validations, best),
    }
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        write_example(module.to(trainer.strategy.root_device), datamodule, run.matches_file)
        write_down(summary, config, run)
    return TrainingResult(config, run, trainer, module, datamodule, validations, summary)


def fit(trainer: L.Trainer, module: PoseLearner, datamodule: OPV2VDataModule, config: Config, run: RunFolder) -> None:
    """Measure the start weights if asked to, then train from there or from where the run was left."""
    if run.resume_from is None and config.callbacks.validate_at_start:
        module.is_at_start = True
        trainer.validate(module, datamodule=datamodule, verbose=False)
        module.is_at_start = False
    trainer.fit(module, datamodule=datamodule, ckpt_path=run.resume_from)


def write_down(summary: dict[str, Any], config: Config, run: RunFolder) -> None:
    """Figures for scripts, curves and a table for people."""
    write_json(summary, run.metrics_file)
    if (table := run.path / "metrics.csv").exists():  # a run of few steps may have logged nothing
        write_run_curves(read_metrics(table), run.path / "curves.html", run.path.name)
    print_summary(summary, f"{config.experiment}, {summary['steps']} steps, {run.path}")
    warn_if_worse_than_at_first(summary)
    print_next_steps(run.path, config)


def check_figures(result: TrainingResult) -> None:
    """See that the run ended with numbers.

    Raises:
        NonFiniteError: a headline of the last or the best validation is NaN or infinite.
    """
    names = {"val/loss", result.config.checkpoint.monitor}
    names |= {name for _, name, _ in HEADLINES if "covisible" not in name}  # of pairs that not every split has
    stages = result.summary.get("validations", {})
    bad = [
        f"{name} of the {stage} validation"
        for stage in ("last", "best")
        for name, value in stages.get(stage, {}).items()
        if name in names and not math.isfinite(value)
    ]
    if bad:
        raise NonFiniteError(
            f"{result.run.path}: the run ended with figures that are no numbers: {', '.join(bad)}; look at curves.html "
            "and the data, or lower optim.lr"
        )
