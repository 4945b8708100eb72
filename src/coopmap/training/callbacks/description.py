"""Description of a run: model, data and learning rates."""

from __future__ import annotations

import logging
from collections import defaultdict

import lightning as L

log = logging.getLogger(__name__)


class Description(L.Callback):
    """Logs the data (with its depth source) first, then, before training, the model and its learning rates."""

    def __init__(self) -> None:
        self._described_data = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Log the data."""
        if not self._described_data:
            for line in trainer.datamodule.describe():  # type: ignore[attr-defined]
                log.info(line)
        self._described_data = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the model and its learning rates."""
        parts_at: defaultdict[float, list[str]] = defaultdict(list)
        for group in trainer.optimizers[0].param_groups:
            parts_at[group["initial_lr"]].append(group["name"])
        total = sum(parameter.numel() for parameter in pl_module.parameters())
        trained = sum(parameter.numel() for parameter in pl_module.parameters() if parameter.requires_grad)
        log.info("model: %s parameters, %s trained", _millions(total), _millions(trained))
        for rate, parts in parts_at.items():
            log.info("peak learning rate %g: %s", rate, ", ".join(dict.fromkeys(parts)))
        log.info(
            "%d steps on %d process(es), %s", trainer.estimated_stepping_batches, trainer.world_size, trainer.precision
        )


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"
