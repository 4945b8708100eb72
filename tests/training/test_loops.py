"""The last step of a run is validated, wherever it falls; on a regression of two numbers."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from coopmap.config.train import CheckpointConfig
from coopmap.training.callbacks import LastCheckpoint, ValidationHistory
from coopmap.training.loops import validate_at_the_end


class Regression(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/loss", batch.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAt(L.Callback):
    """Asks for a stop after a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        trainer.should_stop |= trainer.fit_loop.total_batch_idx == self.batch


def validated(file: Path, *callbacks: L.Callback, **options: Any) -> list[float]:
    """Steps at which a run of epochs of four batches is validated, which also writes checkpoints."""
    history = ValidationHistory()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, history, LastCheckpoint(file, CheckpointConfig(every_n_steps=1))],
        **options,
    )
    validate_at_the_end(trainer)
    loader = DataLoader(torch.zeros(4, 1))  # type: ignore[arg-type]
    trainer.fit(Regression(), loader, loader)
    return [entry["step"] for entry in history.entries]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 6}, [4, 6]),
        ({"max_steps": 3}, [3]),
        ({"max_steps": 8}, [4, 8]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [8, 12]),
        ({"max_epochs": 1, "val_check_interval": 3}, [3, 4]),
        ({"max_steps": 3, "accumulate_grad_batches": 2}, [2, 3]),
        ({"max_epochs": 3, "max_steps": 5, "check_val_every_n_epoch": 2}, [5]),
        ({"max_steps": 3, "limit_val_batches": 0}, []),
        ({"max_steps": 4, "accumulate_grad_batches": 2, "val_check_interval": 3}, [2, 4]),
        ({"fast_dev_run": 2}, [2]),
    ],
)
def test_the_last_step_is_validated_and_none_twice(options: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    assert validated(tmp_path / "last.ckpt", **options) == steps


def test_who_stops_within_accumulated_batches_is_validated(tmp_path: Path) -> None:
    steps = validated(tmp_path / "last.ckpt", StopAt(2), max_epochs=3, accumulate_grad_batches=2)
    assert steps == [1]
