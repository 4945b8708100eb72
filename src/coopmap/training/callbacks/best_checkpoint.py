"""The checkpoint of the best validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
