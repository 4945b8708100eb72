"""Training on a few batches again and again (``trainer.overfit_batches``), to see whether a model can learn at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from torch.utils.data import DataLoader

from coopmap.config import Config
from coopmap.data import OPV2VDataModule
from coopmap.data.sampling import Position
from coopmap.types import Batch


class FirstBatches(OPV2VDataModule):
    """The first training batches, kept in memory with one fixed augmentation."""

    def __init__(self, config: Config, num_batches: int) -> None:
        data = replace(config.data, steps_per_epoch=num_batches)
        super().__init__(data, config.seed, config.task, config.priors, config.length)
        self._batches: list[Batch] = []

    def train_dataloader(self) -> DataLoader:
        """The batches; after a resume, those that the interrupted epoch has left first."""
        return self._first_batches(self._position)

    def val_dataloader(self) -> DataLoader:
        """The same batches."""
        return self._first_batches(Position())

    def _first_batches(self, position: Position) -> DataLoader:
        number = self.config.steps_per_epoch
        self._batches = self._batches or list(islice(self.train_dataloader_at(Position()), number))
        order = RepeatedOrder(number, position)
        return DataLoader(self._batches, batch_size=None, sampler=order)  # type: ignore[arg-type]  # a list is a dataset


class RepeatedOrder:
    """Endless epochs of the same batches, by number.

    Args:
        number: of batches.
        position: where the first pass starts (a resumed run); later passes start with the first batch.
    """

    def __init__(self, number: int, position: Position) -> None:
        self.number, self.epoch, self.step = number, position.epoch, position.step

    def __len__(self) -> int:
        return self.number

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; Lightning calls it."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def __iter__(self) -> Iterator[int]:
        step, self.step = self.step, 0
        yield from range(step, self.number)
