"""The checkpoint that training continues from."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from coopmap.config.train import CheckpointConfig
from coopmap.runs.checkpoint_io import IN_BACKGROUND, AtomicCheckpointIO

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at intervals of steps or minutes, after each validation, at the end and on a stop signal.

    Always between two steps, when model, optimizer, schedule and position in the data are consistent: the end of an
    accumulated step is waited for. Those that are due by time are copied to the host's memory and written while
    training goes on; with ``strategy=fsdp`` they are written within the step.

    Attributes:
        is_due: whether any rank's clock said at the start of this batch that it is time: ranks agree on it in
            :class:`~coopmap.training.callbacks.StopOnSignal`, which waits for no GPU.
    """

    def __init__(self, file: Path, cfg: CheckpointConfig) -> None:
        self.file, self.cfg = file, cfg
        self.is_due = False
        self._saved_step = 0
        self._saved_at = time.monotonic()

    @property
    def is_late(self) -> bool:
        """Whether it is time to save, by this process's clock."""
        minutes = self.cfg.every_n_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Save if it is time.

        Not right before a validation: a run resumed from here would skip it.
        """
        is_between_steps = not trainer.fit_loop._should_accumulate()
        if not is_between_steps or trainer.global_step == self._saved_step or _validation_comes_next(trainer):
            return
        steps, is_due = self.cfg.every_n_steps, self.is_due if trainer.world_size > 1 else self.is_late
        if trainer.global_step >= trainer.estimated_stepping_batches or (steps and trainer.global_step % steps == 0):
            self._save(trainer)
        elif is_due:
            self._save(trainer, _in_background(trainer))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics just measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for what is being written."""
        _wait(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save when ranks agreed to stop, which they do between two steps; wait for what is being written."""
        agreed = getattr(exception, "at_step_boundary", False) and trainer.state.fn == "fit"
        try:
            _wait(trainer)
        except OSError as error:
            if agreed:
                raise
            log.error("%s: %s", self.file, error)  # what ended the run is said by the exception in flight
        if agreed and trainer.global_step > self._saved_step:
            if trainer.validating:
                _begin_validation_again(trainer)
            self._save(trainer)

    def _save(self, trainer: L.Trainer, options: str | None = None) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self.file, storage_options=options)
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()


def _in_background(trainer: L.Trainer) -> str | None:
    """The option with which a checkpoint is written while training goes on, where that is possible."""
    able = isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    return IN_BACKGROUND if able and not isinstance(trainer.strategy, ModelParallelStrategy) else None


def _wait(trainer: L.Trainer) -> None:
    if isinstance(writer := trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        writer.wait()


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
