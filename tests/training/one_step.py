"""A training step without Lightning, part by part."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from coopmap.config import Config
from coopmap.data import OPV2VDataModule
from coopmap.training.assembly import build_datamodule
from coopmap.training.module import PoseLearner
from coopmap.types import Batch

MATCHING = ("model.matching.enabled=true", "model.pose_from=alignment", "loss=pose_matching")
"""Overrides: the tiny model regresses otherwise."""


def data_and_batch(config: Config) -> tuple[OPV2VDataModule, Batch]:
    """The data and their first batch, as the loader gives it."""
    data = build_datamodule(config)
    data.prepare_data()
    data.setup("fit")
    return data, next(iter(data.train_dataloader()))


def one_step(module: PoseLearner, optimizer: Optimizer, batch: Batch) -> Tensor:
    """Random inputs, forward, objective, backward, clipping and AdamW; gradients stay."""
    module.tie_random_numbers(0)
    total, _ = module.loss_of(batch, 0)
    total.backward()
    norm = nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)  # type: ignore[union-attr]
    optimizer.found_inf = module.skipping.judge(norm).float()  # type: ignore[attr-defined]
    optimizer.step()
    return total
