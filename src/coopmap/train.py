"""``coopmap train``: train and validate a model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coopmap.cli.main import run_entry_point
from coopmap.config import Config

if TYPE_CHECKING:
    import lightning as L

    from coopmap.data import OPV2VDataModule
    from coopmap.runs.folder import RunFolder
    from coopmap.training.module import PoseLearner

log = logging.getLogger("coopmap.train")  # __name__ is __main__ on the command line


@dataclass
class TrainingResult:
    """What a run produced.

    Attributes:
        config: as it ran.
        run: its folder.
        trainer, module, datamodule: in their final state; the module holds the best weights.
        validations: metrics of every validation, in order.
        summary: content of ``metrics.json``.
    """

    config: Config
    run: RunFolder
    trainer: L.Trainer
    module: PoseLearner
    datamodule: OPV2VDataModule
    validations: list[dict[str, float]]
    summary: dict[str, Any]


def train(config: Config, overrides: Sequence[str] = (), callbacks: Sequence[L.Callback] = ()) -> TrainingResult:
    """Run one training from its configuration.

    Args:
        config: from :func:`coopmap.load_config`.
        overrides: the command line that led to it, for the record.
        callbacks: further ones, called first.
    """
    from lightning import seed_everything

    from coopmap.models.compilation import compile_blocks
    from coopmap.report.files import write_json
    from coopmap.runs.loggers import close_loggers
    from coopmap.runs.logs import is_other_rank, log_to
    from coopmap.runs.next_steps import print_next_steps
    from coopmap.runs.provenance import git_revision
    from coopmap.runs.resume import open_run
    from coopmap.runs.summary import print_summary, summarize, warn_if_worse_than_at_first, write_curves
    from coopmap.training.assembly import build_callbacks, build_datamodule, build_module, build_trainer, validate_best
    from coopmap.training.start import check_start, failed_start_leaves_nothing, report_start
    from coopmap.training.teacher import build_teacher

    started = time.monotonic()
    log_to(None)
    config, run = open_run(config, overrides)
    check_start(config, overrides)
    with failed_start_leaves_nothing(run):
        log_to(run.path / "train.log")
        if not is_other_rank():
            run.record(config, overrides)
        log.info("%s on machine=%s, run folder %s", config.experiment, config.machine, run.path)
        report_start(config)

        datamodule = build_datamodule(config)
        datamodule.check()
        seed_everything(config.seed, verbose=False)
        module = build_module(config)
        if config.model.compile:
            compile_blocks(module)
        module.teacher = build_teacher(config)
        history, all_callbacks = build_callbacks(config, run, callbacks)
        trainer = build_trainer(config, run, all_callbacks)

        if run.resume_from is None and config.callbacks.validate_at_start:
            module.is_at_start = True
            trainer.validate(module, datamodule=datamodule, verbose=False)
            module.is_at_start = False
        trainer.fit(module, datamodule=datamodule, ckpt_path=run.resume_from)
    validations = list(history.entries)  # loading a checkpoint also restores callbacks
    best = validate_best(trainer, module, datamodule, run)

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
        write_json(summary, run.metrics_file)
        write_curves(run.path / "metrics.csv", run.path / "curves.html", f"{config.experiment} ({run.path})")
        print_summary(summary, f"{config.experiment}, {trainer.global_step} steps, {run.path}")
        warn_if_worse_than_at_first(summary)
        print_next_steps(run.path, config.data.root, is_town=config.data.town is not None)
    close_loggers(trainer.loggers)
    return TrainingResult(config, run, trainer, module, datamodule, validations, summary)


def train_command(config: Config, overrides: list[str]) -> float | None:
    """Train; returns the best ``pose_trans_avg``, which a search minimizes."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    try:
        result = train(config, overrides)
    except SIGTERMException:
        log.warning("stopped on a signal; the same command with resume=auto continues")
        raise SystemExit(143) from None
    return result.summary.get("pose_trans_avg", {}).get("best")


def main() -> None:
    """Command line."""
    run_entry_point("train")


if __name__ == "__main__":
    main()
