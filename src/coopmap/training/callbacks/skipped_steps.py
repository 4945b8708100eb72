"""Batches of skipped steps on disk, for ``coopmap replay``."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from coopmap.runs.checkpoint_io import write_sealed
from coopmap.training.module import PoseLearner
from coopmap.types import Batch

log = logging.getLogger(__name__)

KIND = "coopmap: batches of a skipped step"
MOST_STEPS = 3
"""With the weights of each of them, they take as much room as checkpoints."""


class SkippedSteps(L.Callback):
    """Writes the batches of the first steps that are skipped, one file per rank and step; rank 0's has the weights too.

    Whether a step was skipped is known on the device. A copy of it is begun at the end of the step and read before the
    next one changes the weights: by then the device has all of the next step's work, so that waiting for the copy costs
    nothing. All ranks read the same and so gather weights that are shared out at the same place.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batches: list[tuple[Batch, int]] = []
        self._unread: tuple[Tensor, Any, int, list[tuple[Batch, int]]] | None = None
        self._written = 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, index: int) -> None:
        """Hold on to the batches of an optimizer step."""
        if index % trainer.accumulate_grad_batches == 0:
            self._batches = []
        self._batches.append((batch, pl_module._micro_batch(index)))  # type: ignore[operator]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, index: int
    ) -> None:
        """Begin to read whether the step was skipped."""
        assert isinstance(pl_module, PoseLearner)
        if self._written >= MOST_STEPS or trainer.global_step == 0 or (index + 1) % trainer.accumulate_grad_batches:
            return
        now, arrived = pl_module.skipping.now, None
        if now.device.type == "cuda":
            now = torch.empty_like(now, device="cpu", pin_memory=True).copy_(now, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._unread = now, arrived, trainer.global_step, self._batches
        if arrived is None:
            self._look(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the step before, whose weights are still these."""
        self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._unread is None:
            return
        now, arrived, step, batches = self._unread
        self._unread = None
        if arrived is not None:
            arrived.synchronize()  # whether it has arrived may differ between ranks
        if not bool(now) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._written += 1
        weights = _weights(pl_module, keep=trainer.is_global_zero)
        file = file_of(self.folder, step, trainer.global_rank)
        try:
            write_sealed(_content(pl_module, step, batches, weights), file)
        except OSError as error:  # a full disk: training goes on
            log.warning("step %d was skipped, and its batch could not be written: %s", step, error)
            return
        log.warning(
            "step %d was skipped: its gradient is not finite, or far above the usual; coopmap replay %s", step, file
        )


def file_of(folder: Path, step: int, rank: int) -> Path:
    """What a rank leaves of a skipped step."""
    return folder / f"step_{step}_rank_{rank}.pt"


def _weights(module: Any, keep: bool) -> dict[str, Tensor] | None:
    """The whole model's if ``keep``; call it on all ranks, which may each have a share of them."""
    if module.device_mesh is not None:
        from coopmap.training.fully_sharded import gathered

        return gathered(module.model.state_dict(), keep) or None
    return module.model.state_dict() if keep else None


def _content(
    module: Any, step: int, batches: list[tuple[Batch, int]], weights: dict[str, Tensor] | None
) -> dict[str, Any]:
    """Tensors and plain values."""
    return {
        "kind": KIND,
        "step": step,
        "config": module.record.get("config"),
        "precision": str(module.trainer.precision),  # which the configuration leaves to the machine
        "spike": module.optim.spike,
        "usual_norm": module.skipping.usual,
        "weights": weights,
        "batches": [
            {
                "observation": _tensors(batch.observation),
                "target": _tensors(batch.target),
                "metas": [{**asdict(meta), "agents": list(meta.agents)} for meta in batch.metas],
                "micro_batch": micro_batch,
            }
            for batch, micro_batch in batches
        ],
    }


def _tensors(record: Any) -> dict[str, Tensor]:
    return {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}
