"""The checkpoint of the best validation."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from coopmap.config.checks import ConfigError
from coopmap.runs.seal import verify


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` as long as no validation is better, also in a folder that was moved or copied.

    Lightning forgets the best score when the folder has another path than before.

    Args:
        file: to write.
        monitor: metric whose lowest value is best.
    """

    def __init__(self, file: Path, monitor: str) -> None:
        super().__init__(
            dirpath=file.parent,
            filename=file.stem,
            monitor=monitor,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
        self.file = file

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if no validation was better.

        Raises:
            ConfigError: validations have no such metric; what was trained is kept in ``last.ckpt``.
        """
        if not trainer.sanity_checking and self.monitor not in trainer.callback_metrics:
            error = ConfigError(_unknown(str(self.monitor), [*trainer.callback_metrics]))
            error.at_step_boundary = True  # type: ignore[attr-defined]  # LastCheckpoint keeps this step
            raise error
        super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the score if its checkpoint is here; another run's is not."""
        score = state_dict["best_model_score"]
        try:
            verify(self.file)
        except ConfigError:  # the next validation writes a new one
            return
        if score is None:
            return
        path = str(Path(str(self.dirpath)) / self.file.name)
        score = torch.as_tensor(score)
        self.best_model_score, self.best_model_path = score, path
        self.best_k_models = {path: score}
        self.kth_best_model_path, self.kth_value = path, score


def _unknown(monitor: str, metrics: Sequence[str]) -> str:
    near = difflib.get_close_matches(monitor, [name for name in metrics if name.startswith("val/")], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"checkpoint.monitor={monitor}: validation has no such metric; {hint}docs/measures.md has all of them"
