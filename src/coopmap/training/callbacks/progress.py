"""Progress: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from coopmap.config.schema import Config
from coopmap.config.validations import validations

log = logging.getLogger(__name__)

ERROR = "val/trans_m_mean"
BAR_SECONDS = 2.0


def progress_callback(config: Config) -> L.Callback | None:
    """The callback that ``callbacks.progress`` selects."""
    mode = config.callbacks.progress
    if mode == "auto":
        mode = "bar" if sys.stdout.isatty() else "lines"
    if mode == "none":
        return None
    validations_left = partial(validations, config)
    if mode == "bar":
        return RunProgressBar(validations_left)
    return ProgressLines(validations_left, config.callbacks.progress_seconds)


class RunProgress(L.Callback, ABC):
    """Tracks the progress of a whole run, validations included, or of an evaluation; subclasses display it.

    Lightning's own bars count one epoch, from 0, and ask the GPU for the loss at every step. Here metrics are read
    every ``seconds``.

    Args:
        validations_left: how many a run still makes after so many steps.
        seconds: between two displays.
    """

    def __init__(self, validations_left: Callable[[int], int], seconds: float) -> None:
        self.validations_left = validations_left
        self.seconds = seconds
        self._since, self._since_step = time.monotonic(), 0
        self._validating_since = self._since
        self._training_time, self._trained_steps = 0.0, 0
        self._validation_time, self._validations = 0.0, 0
        self._error: float | None = None

    @abstractmethod
    def show_training(self, trainer: L.Trainer, figures: str, left: timedelta) -> None:
        """Show loss, latest validation error and speed (``figures``), and the time left for the whole run."""

    @abstractmethod
    def show_validation(self, what: str, done: int, total: int, left: timedelta) -> None:
        """Show how many batches of a validation are done, and the time left for it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start_interval(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Show the progress of training if it is time."""
        elapsed, steps = time.monotonic() - self._since, trainer.global_step - self._since_step
        if not trainer.is_global_zero or elapsed < self.seconds or not steps:
            return
        self._count_training(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        figures = ["loss -" if loss is None else f"loss {float(loss):.4g}"]
        if self._error is not None:
            figures.append(f"error {self._error:.3g} m")
        figures.append(f"{elapsed / steps:.2g} s/step")
        self.show_training(trainer, "  ".join(figures), self._left(trainer))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what was trained since it was last shown."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._count_training(trainer)
        self._since = self._validating_since = time.monotonic()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: object
    ) -> None:
        """Show the progress of validation if it is time."""
        if trainer.is_global_zero and time.monotonic() - self._since >= self.seconds:
            self._since = time.monotonic()
            done, total = batch_idx + 1, int(sum(trainer.num_val_batches))
            seconds = (self._since - self._validating_since) * (total - done) / done
            what = "measuring" if trainer.state.fn == "validate" else "validating"
            self.show_validation(what, done, total, timedelta(seconds=round(seconds)))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The duration of a validation does not count as training."""
        if not trainer.sanity_checking:
            self._validation_time += time.monotonic() - self._validating_since
            self._validations += 1
        if ERROR in trainer.callback_metrics:
            self._error = float(trainer.callback_metrics[ERROR])
        self._start_interval(trainer)

    def _start_interval(self, trainer: L.Trainer) -> None:
        self._since, self._since_step = time.monotonic(), trainer.global_step

    def _count_training(self, trainer: L.Trainer) -> None:
        self._training_time += time.monotonic() - self._since
        self._trained_steps += trainer.global_step - self._since_step
        self._start_interval(trainer)

    def _left(self, trainer: L.Trainer) -> timedelta:
        steps = trainer.estimated_stepping_batches - trainer.global_step
        seconds = steps * self._training_time / self._trained_steps
        if self._validations:
            before = max(1, trainer.global_step - 1)  # that of this step is to come
            seconds += self.validations_left(before) * self._validation_time / self._validations
        return timedelta(seconds=round(seconds))


class ProgressLines(RunProgress):
    """Logs ``epoch 2/8  step 340/2000  loss 1.23  error 7.31 m  0.21 s/step  0:05:12 left`` every ``seconds``."""

    def show_training(self, trainer: L.Trainer, figures: str, left: timedelta) -> None:
        """Log a line."""
        step = f"step {trainer.global_step}/{trainer.estimated_stepping_batches}"
        log.info("%s  %s  %s  %s left", _epoch(trainer), step, figures, left)

    def show_validation(self, what: str, done: int, total: int, left: timedelta) -> None:
        """Log a line."""
        log.info("%s: batch %d/%d  %s left", what, done, total, left)


class RunProgressBar(RunProgress):
    """The same on one line of the terminal, below the log."""

    def __init__(self, validations_left: Callable[[int], int]) -> None:
        super().__init__(validations_left, BAR_SECONDS)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[figures]}"),
        )
        self._bar = Progress(*columns, transient=True, expand=True, auto_refresh=False)
        self._task: TaskID | None = None

    def show_training(self, trainer: L.Trainer, figures: str, left: timedelta) -> None:
        """Update the bar of the whole run."""
        total = int(trainer.estimated_stepping_batches)
        self._update(f"{_epoch(trainer)}", trainer.global_step, total, f"{figures}  {left} left")

    def show_validation(self, what: str, done: int, total: int, left: timedelta) -> None:
        """Update the validation bar."""
        self._update(what, done, total, f"{left} left")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error has the terminal to itself."""
        self._stop()

    def _update(self, description: str, done: int, total: int, figures: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task(description, total=total, figures=figures)
            self._bar.start()
        self._bar.update(
            self._task, description=description, completed=done, total=total, figures=figures, refresh=True
        )

    def _stop(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


def _epoch(trainer: L.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
