"""Progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from coopmap.config.train import CallbacksConfig

log = logging.getLogger(__name__)


def progress_callback(cfg: CallbacksConfig) -> L.Callback | None:
    """The callback that ``callbacks.progress`` asks for."""
    mode = cfg.progress
    if mode == "auto":
        mode = "bar" if sys.stdout.isatty() else "lines"
    if mode == "none":
        return None
    return RichProgressBar(refresh_rate=10, leave=False) if mode == "bar" else ProgressLines(cfg.progress_seconds)


class ProgressLines(L.Callback):
    """Logs ``epoch 2/10  step 340/1000  loss 1.23  0.21 s/step  4 min left`` every ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last_time, self._last_step = time.monotonic(), 0
        self._training_time, self._trained_steps = 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_time, self._last_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        elapsed, steps = time.monotonic() - self._last_time, trainer.global_step - self._last_step
        if not trainer.is_global_zero or elapsed < self.seconds or not steps:
            return
        self._training_time, self._trained_steps = self._training_time + elapsed, self._trained_steps + steps
        total = trainer.estimated_stepping_batches
        left = timedelta(seconds=round((total - trainer.global_step) * self._training_time / self._trained_steps))
        loss = trainer.callback_metrics.get("train/loss")
        log.info(
            "epoch %d/%s  step %d/%s  loss %s  %.3g s/step  %s left",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            trainer.global_step,
            total,
            "-" if loss is None else f"{float(loss):.4g}",
            elapsed / steps,
            left,
        )
        self._last_time, self._last_step = time.monotonic(), trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The duration of a validation does not count as training."""
        self._last_time, self._last_step = time.monotonic(), trainer.global_step
