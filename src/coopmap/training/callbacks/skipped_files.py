"""The list of files that could not be read."""

from __future__ import annotations

import logging

import lightning as L
import torch

log = logging.getLogger(__name__)


class SkippedFiles(L.Callback):
    """Lists, at the end of an epoch, every file that was skipped, of all ranks, if there are new ones."""

    def __init__(self) -> None:
        self._listed = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather and log the list."""
        data = getattr(trainer, "datamodule", None)
        mine: dict[str, list[str]] = data.skipped_files() if data is not None and hasattr(data, "skipped_files") else {}
        everyone: list[dict[str, list[str]]] = [mine]
        if trainer.world_size > 1:
            everyone = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(everyone, mine)
        files = sorted({(split, text) for part in everyone for split, texts in part.items() for text in texts})
        if len(files) > self._listed and trainer.is_global_zero:
            lines = "".join(f"\n  {split}: {text}" for split, text in files)
            log.warning(
                "%d files could not be read and were skipped up to step %d:%s", len(files), trainer.global_step, lines
            )
        self._listed = len(files)
