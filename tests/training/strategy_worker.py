"""Jobs that every rank of a group runs; see test_strategies.py. Call: strategy_worker.py FOLDER JOB..., each a JSON."""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

from coopmap import load_config
from coopmap.models import mapanything
from coopmap.train import train


class Watcher(L.Callback):
    """Writes down each micro-batch's place and loss, and bytes that this rank keeps between steps."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.samples: dict[int, list[Any]] = {}
        self.kept: dict[str, int] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        place = trainer.datamodule.micro_batch(index)  # type: ignore[attr-defined]
        self.losses[place] = outputs["loss"].item() * trainer.accumulate_grad_batches
        self.samples[place] = [[meta.scenario, meta.frame, *meta.agents] for meta in batch.metas]

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
        self.kept["gradients"] = sum(map(local_bytes, gradients))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        states = trainer.optimizers[0].state.values()
        self.kept["parameters"] = sum(map(local_bytes, module.model.parameters()))
        self.kept["optimizer"] = sum(local_bytes(value) for state in states for value in state.values())


def local_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the part that this rank has."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


def job(folder: Path, name: str, overrides: list[str]) -> None:
    """Train, and write down what was watched."""
    watcher = Watcher()
    train(load_config(overrides), overrides, [watcher])
    found = {"losses": watcher.losses, "samples": watcher.samples, "kept": watcher.kept}
    (folder / f"{name}.{os.environ.get('RANK', os.environ.get('LOCAL_RANK', 0))}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    # as the fixture narrow_encoders does
    mapanything.DenseEncoder = functools.partial(mapanything.DenseEncoder, hidden_dims=(24, 32, 48))  # type: ignore[misc,assignment]
    for text in sys.argv[2:]:
        asked = json.loads(text)
        job(Path(sys.argv[1]), asked["name"], asked["overrides"])
