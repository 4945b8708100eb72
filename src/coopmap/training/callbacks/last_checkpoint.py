"""The checkpoint that training continues from."""

from __future__ import annotations

import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from coopmap.config.train import CheckpointConfig


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at intervals of steps or minutes, after each validation, at the end and on a stop signal.

    Always between two steps, when model, optimizer, schedule and position in the data are consistent.
    """

    def __init__(self, file: Path, cfg: CheckpointConfig) -> None:
        self.file, self.cfg = file, cfg
        self._saved_step = 0
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Save if it is time. Rank 0's clock decides for all.

        Not right before a validation: a run resumed from here would skip it.
        """
        if trainer.global_step == self._saved_step or _validation_comes_next(trainer):
            return
        steps, minutes = self.cfg.every_n_steps, self.cfg.every_n_minutes
        due = steps is not None and trainer.global_step % steps == 0
        if not due and minutes is not None:
            due = trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60 * minutes)
        if due or trainer.global_step >= trainer.estimated_stepping_batches:
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics just measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save when ranks agreed to stop, which they do between two steps."""
        agreed = getattr(exception, "at_step_boundary", False) and trainer.state.fn == "fit"
        if agreed and trainer.global_step > self._saved_step:
            if trainer.validating:
                _begin_validation_again(trainer)
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.file)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()


def _validation_comes_next(trainer: L.Trainer) -> bool:
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def _begin_validation_again(trainer: L.Trainer) -> None:
    """Have a run that is resumed from here measure all batches: figures of a part are worth nothing."""
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.current.reset()
    progress.total.reset()
    progress.total.load_state_dict({"ready": 1, "started": 1, "processed": 0, "completed": 0})  # as if interrupted
