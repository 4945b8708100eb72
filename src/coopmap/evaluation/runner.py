"""Runs an evaluation and writes the results."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from coopmap.config import Config, ConfigError
from coopmap.config.evaluate import EvaluateConfig
from coopmap.config.machine import check_gpus
from coopmap.config.strategy import StrategyConfig
from coopmap.evaluation.baselines import add_baselines, notes_about
from coopmap.evaluation.bound import Bound
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.export import write_exports
from coopmap.evaluation.frames import FrameList, read_frame_list
from coopmap.evaluation.outputs import PARTIAL, SHARES, remove_results
from coopmap.evaluation.probes import build_probes, require_sense, why_nothing_asked
from coopmap.evaluation.records import Recorder, SampleRecord, gathered, write_table
from coopmap.evaluation.subject import Subject, open_subject
from coopmap.evaluation.summary import Conditions, summarize_records
from coopmap.report.files import write_json
from coopmap.runs.outputs import check_output_folder
from coopmap.training.assembly import new_trainer, say_precision, trainer_options
from coopmap.training.callbacks import progress_callback
from coopmap.types import Observation, Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of one checkpoint.

    Attributes:
        name: of what was evaluated.
        figures: by name as training logs them, ``val/pose_trans_avg`` and so on.
        summary: content of ``summary.json``.
        folder: where everything was written.
        is_first: this process wrote the results; other ranks hold only their own share.
    """

    name: str
    figures: dict[str, float]
    summary: dict[str, Any]
    folder: Path
    is_first: bool = True

    @property
    def file(self) -> Path:
        """The metrics."""
        return self.folder / "metrics.json"


def run_evaluation(asked: EvaluateConfig, overrides: Sequence[str] = ()) -> EvaluationResult:
    """Run the requested evaluation, on as many devices as ``trainer.devices`` says (one by default).

    Args:
        asked: options of the evaluation.
        overrides: of the composed or stored configuration.

    Raises:
        ConfigError: something requested does not exist or does not fit.
    """
    started = time.monotonic()
    frames = read_frame_list(asked.frames) if asked.frames is not None else None
    subject = open_subject(asked, overrides)
    require_sense(asked.probe, subject.config, subject.name)
    split = "frames" if frames is not None else asked.split or "val"
    where = frames.name if frames is not None else split
    data = EvaluationData(subject.config, split, frames)
    folder = Path(asked.output or _default_folder(subject, split, frames)).expanduser()
    check_output_folder("output", folder)
    trainer = _build_trainer(subject.config, overrides)
    config, compared = subject.config, asked.baselines
    bound = Bound(config.model, config.loss.dense_share) if "bound" in compared else None
    probes = build_probes(asked.probe, partial(_ask, trainer, subject.module.model), config, data.elsewhere)
    recorder = Recorder(folder / _samples_file(trainer), asked.refine, probes, bound, "mean" in compared)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]

    log.info("measuring %s on %s, inputs: %s", subject.name, where, config.describe_inputs())
    (measured,) = trainer.validate(subject.module, datamodule=data, verbose=False)
    figures = {name.replace("val/", f"{split}/", 1): float(value) for name, value in measured.items()}
    if data.num_too_few:
        few = data.num_too_few, data.config.min_agents
        log.info("in %d more frames fewer than data.min_agents=%d agents are in range", *few)
    gaps = add_baselines(recorder.records, data, compared)
    for record in recorder.records:
        record.street = data.street_of(record.meta.scenario)
    records, shares = gathered(recorder.records, (data.unreadable, gaps, recorder.inputs))
    unreadable = sorted({line for share in shares for line in share[0]})
    if not records:
        raise ConfigError(f"{where}: none of the samples asked for can be read: {'; '.join(unreadable)}")

    inputs = [share[2] for share in shares]
    conditions = Conditions(
        origin={**subject.origin, "data_root": config.data.root, "overrides": list(overrides)},
        split=split,
        frames=frames,
        asked_for=config.describe_inputs(),
        views=sum(count.views for count in inputs),
        given={name: sum(count.given[name] for count in inputs) for name in inputs[0].given},
        num_requested=data.num_requested,
        num_available=data.num_available,
        num_too_few=data.num_too_few,
        min_agents=data.config.min_agents,
        unreadable=unreadable,
        notes=notes_about([share[1] for share in shares]),
        seconds=time.monotonic() - started,
    )
    summary = summarize_records(records, conditions, seed=subject.config.seed)
    for line in why_nothing_asked(set(asked.probe) - summary["probes"].keys()):
        log.warning(line)
    if trainer.is_global_zero:
        remove_results(folder)
        subject.module.to(trainer.strategy.root_device)  # for pictures
        write_exports(folder, records, data, asked.export)
        _write(folder, records, summary, figures, conditions, subject, data)
    return EvaluationResult(subject.name, figures, summary, folder, trainer.is_global_zero)


def _ask(trainer: L.Trainer, model: Callable[[Observation], Prediction], observation: Observation) -> Prediction:
    """One more pass, at the precision of the others."""
    with trainer.precision_plugin.forward_context():
        return model(observation)


def _samples_file(trainer: L.Trainer) -> str:
    return PARTIAL if trainer.global_rank == 0 else f"samples.rank{trainer.global_rank}.csv"


def _default_folder(subject: Subject, split: str, frames: FrameList | None) -> Path:
    config = subject.config
    parts = ["evaluation", frames.name if frames is not None else split]
    if config.task.for_evaluation().geometric:
        parts.append(config.task.name)
    if config.priors.gives_pose:
        parts.append(config.priors.agent_pose)
    return subject.folder / re.sub(r"[^\w.-]", "-", "_".join(parts))  # names of a stored task may be anything


def _build_trainer(config: Config, overrides: Sequence[str]) -> L.Trainer:
    """All batches on one device of any kind, at the precision of training, unless overrides say otherwise."""
    asked_for = {override.partition("=")[0] for override in overrides}
    defaults = {"accelerator": "auto", "devices": 1, "strategy": "auto", "num_nodes": None}
    defaults |= {"fast_dev_run": None, "limit_val_batches": None}
    for name, value in defaults.items():
        if f"trainer.{name}" not in asked_for:
            setattr(config.trainer, name, value)
    config.strategy = StrategyConfig()  # one rank draws pictures alone, so each holds the whole model
    check_gpus(config.machine, config.trainer.accelerator, config.trainer.devices)
    progress = progress_callback(config)
    trainer = new_trainer(
        **trainer_options(config),
        callbacks=[] if progress is None else [progress],
        logger=False,
        enable_checkpointing=False,
    )
    say_precision(trainer, config)
    return trainer


def _write(
    folder: Path,
    records: Sequence[SampleRecord],
    summary: dict[str, Any],
    figures: dict[str, float],
    conditions: Conditions,
    subject: Subject,
    data: EvaluationData,
) -> None:
    write_table(folder / "samples.csv", [record.sample_row() for record in records])
    write_table(folder / "pairs.csv", [row for record in records for row in record.pair_rows()])
    for share in (folder / PARTIAL, *folder.glob(SHARES)):
        share.unlink(missing_ok=True)
    for name in ("risk_coverage", "reliability") if summary["confidence"] else ():
        write_table(folder / f"{name}.csv", summary["confidence"][name])
    write_json(summary, folder / "summary.json")
    origin = {**conditions.origin, "split": conditions.split, "inputs": conditions.inputs_received()}
    write_json({**origin, "figures": figures}, folder / "metrics.json")
    from coopmap.evaluation.html import write_report  # last: the tables are already written
    from coopmap.evaluation.match_pictures import match_pictures, write_match_pictures

    matches = match_pictures(subject.module, records, data)
    write_match_pictures(matches, folder)
    write_report(folder / "report.html", subject.name, records, summary, conditions, data, matches)
