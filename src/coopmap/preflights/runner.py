"""Everything that is tried out before a run begins."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import datetime

import lightning as L

from coopmap.config import Config, ConfigError
from coopmap.config.validations import validation_batches
from coopmap.data import OPV2VDataModule
from coopmap.preflights.facts import (
    check_launcher,
    data_findings,
    process_finding,
    rate_findings,
    schedule_start,
    weights_finding,
)
from coopmap.preflights.findings import Finding, findings_table, gib, remedies, wrong
from coopmap.preflights.forecast import Pace, forecast
from coopmap.preflights.memory import device_findings
from coopmap.preflights.needs import memory_needed
from coopmap.preflights.sample import sample_finding
from coopmap.preflights.trial import Trial, run_trial
from coopmap.report.terminal import print_table
from coopmap.runs.folder import RunFolder, launched_config
from coopmap.runs.logs import is_other_rank
from coopmap.runs.stored import open_checkpoint
from coopmap.training.module import PoseLearner

log = logging.getLogger(__name__)


class Preflight:
    """Two parts: the machine before anything is built, and the run once it is.

    Args:
        config: of the run.
        memory_needed: bytes on each GPU, by the plan.
    """

    def __init__(self, config: Config, memory_needed: Callable[[Config], int] = memory_needed) -> None:
        self.config, self.memory_needed = config, memory_needed
        self._began = time.monotonic()
        self._findings: list[Finding] = []

    def check_machine(self) -> None:
        """Processes and memory; waits for memory if it may.

        Raises:
            ConfigError: they are not what the run needs.
        """
        if launched_config() is not None:  # rank 0 has looked at this machine for all that it starts
            return
        check_launcher(self.config)
        waits = self.config.preflight.wait_for_memory is not None
        if is_other_rank() and not waits:  # one look is enough, but all have to wait, or they give up on those that do
            return
        self._findings = device_findings(self.config, self.memory_needed)
        self._began = time.monotonic()

    def try_out(self, run: RunFolder, trainer: L.Trainer | None, module: PoseLearner, data: OPV2VDataModule) -> None:
        """Data, weights, the largest batch and a validation batch; shows the table and when the run will end.

        Args:
            run: its folder.
            trainer: of the run, which takes over the processes that the trial starts; ``None`` if no run follows.
            module: of the run; to the bit what it was, afterwards.
            data: of the run.

        Raises:
            ConfigError: the run cannot work; names what to change.
        """
        config = self.config
        if config.trainer.fast_dev_run or config.trainer.overfit_batches:  # is one itself
            if trainer is None:
                log.info("trainer.fast_dev_run and overfit_batches are tries themselves: nothing else is tried out")
            return
        trial = run_trial(config, module, data)
        if trainer is not None and trial.children:
            trainer.strategy.launcher.procs = trial.children  # type: ignore[union-attr]
        if is_other_rank():
            return
        findings = [
            *self._findings,
            process_finding(config, trial.world_size),
            *data_findings(config, data, trial.world_size, _val_batches(config, trial)),
            *rate_findings(config, schedule_start(config, run)),
            weights_finding(config, run, module),
            sample_finding(config.data, data),
            *_trial_findings(trial),
        ]
        print_table(findings_table(findings))
        if faults := wrong(findings):
            raise ConfigError(
                "the run would not work as it is: "
                + "; ".join(remedies(faults) or [fault.what for fault in faults])
                + " (preflight.enabled=false starts it nevertheless)"
            )
        log.info("preflight took %.1f s; %s", time.monotonic() - self._began, _forecast(config, run, trial))


def _trial_findings(trial: Trial) -> list[Finding]:
    """Steps, with what they took."""
    samples, agents = trial.shape
    found = []
    if trial.exchange is not None:
        found.append(Finding("all-reduce", str(trial.exchange)))
    found.append(Finding("largest batch", f"{samples} x {agents} agents, read in {trial.load_s:.2g} s"))
    loss = f"loss {trial.loss:.4g}, " if math.isfinite(trial.loss) else "loss not finite, "
    verdict = "ok" if math.isfinite(trial.loss) else "note"
    found.append(Finding("training step", loss + _cost(trial.batch_s, trial.train_peak), verdict))  # type: ignore[arg-type]
    found.append(Finding("validation step", _cost(trial.val_s, trial.val_peak)))
    return found


def _cost(seconds: float, peak: int) -> str:
    return f"{seconds:.2g} s" + (f", {gib(peak)} GiB at most" if peak else "")


def _val_batches(config: Config, trial: Trial) -> int:
    """Of a validation, on the rank that has most."""
    return validation_batches(config, -(-trial.val_batches // trial.world_size))


def _forecast(config: Config, run: RunFolder, trial: Trial) -> str:
    loaders = config.data.num_workers
    batches = _val_batches(config, trial)
    load = trial.load_s / loaders if loaders else trial.load_s
    validation = batches * (max(trial.val_s, load) if loaders else trial.val_s + load)
    pace = Pace(trial.batch_s, trial.load_s, loaders, validation, config.accumulate)
    done = 0 if run.resume_from is None else open_checkpoint(run.resume_from).step or 0
    return forecast(pace, config, done, datetime.now())
