"""Lightning's loops of a training, with a validation at its end wherever that falls."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.loops import _FitLoop, _TrainingEpochLoop
from lightning.pytorch.loops.fetchers import _DataFetcher


def validate_at_the_end(trainer: L.Trainer) -> None:
    """Have a trainer validate after its last step, also within an epoch and where none is due in that epoch."""
    before = trainer.fit_loop
    trainer.fit_loop = FitLoop(trainer, before.min_epochs, before.max_epochs)
    trainer.fit_loop.epoch_loop = EpochLoop(trainer, before.min_steps, before.max_steps)


class FitLoop(_FitLoop):
    """Takes up a validation after the last step that was interrupted; Lightning would call that run complete."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        measured = self.epoch_loop.val_loop.batch_progress.total
        is_interrupted = self.restarting and measured.processed < measured.started  # type: ignore[attr-defined]
        return not is_interrupted and super().done


class EpochLoop(_TrainingEpochLoop):
    """Validates at the end of the run, too, and only between optimizer steps.

    Within the batches whose gradients are added up, a best checkpoint would lack the gradients of those before it.
    """

    _is_overdue = False

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        trainer = self.trainer
        no_step_follows = trainer.should_stop and trainer.fit_loop._can_stop_early
        return (no_step_follows or not self._should_accumulate()) and self._is_due(data_fetcher)

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate if it is time; else have the end of the step make up for it."""
        super().on_advance_end(data_fetcher)
        self._is_overdue = self._should_accumulate() and self._is_due(data_fetcher)

    def _is_due(self, data_fetcher: _DataFetcher) -> bool:
        at_the_end = self.trainer.enable_validation and self._is_at_the_end
        return super()._should_check_val_fx(data_fetcher) or at_the_end or self._is_overdue

    @property
    def _is_at_the_end(self) -> bool:
        """Whether no batch follows. ``is_last_batch`` speaks of the batch in hand, which a stop signal takes back."""
        trainer = self.trainer
        is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        ends_here = is_last_epoch and self.batch_idx + 1 >= trainer.num_training_batches
        return ends_here or 0 < self.max_steps <= self.global_step

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on a batch; but after a resume within the validation that followed one, end that first.

        Lightning does so where a validation is due. That of a former end is no longer when the run was made longer.
        """
        if self.restarted_on_last and self._batches_that_stepped < self.global_step:
            self._skip_next_val = not self.val_loop.restarted_mid_evaluation
        else:
            super().advance(data_fetcher)
