"""Duration of steps, and the share spent waiting for data."""

from __future__ import annotations

import time

import lightning as L


class StepTiming(L.Callback):
    """Logs means over the steps since the last log: ``time/step_s``, ``time/data_s``, ``time/samples_per_s``.

    Host clock: on a GPU, steps are launched asynchronously, but their mean is right. Lightning's
    ``ThroughputMonitor`` waits for the GPU at every step instead, and does not distinguish waiting for data from
    computing.
    """

    def __init__(self) -> None:
        self._reset()
        self._batch_ended: float | None = None

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._steps, self._samples, self._waited = 0, 0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what lay between two epochs."""
        self._batch_ended = None
        self._reset()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, *_: object) -> None:
        """The data is there."""
        if self._batch_ended is not None:
            self._waited += time.perf_counter() - self._batch_ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """The step is done; log the means at steps that are logged."""
        self._steps += 1
        self._samples += len(getattr(batch, "metas", ()))
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            elapsed = time.perf_counter() - self._since
            pl_module.log_dict(
                {
                    "time/step_s": elapsed / self._steps,
                    "time/data_s": self._waited / self._steps,
                    "time/samples_per_s": self._samples * trainer.world_size / elapsed,
                }
            )
            self._reset()
        self._batch_ended = time.perf_counter()
