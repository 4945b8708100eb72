"""The largest batches of a run, and a data module that holds nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from coopmap.config import ConfigError
from coopmap.data import OPV2VDataModule
from coopmap.data.dataset import FrameDataset
from coopmap.data.order import build_pool
from coopmap.data.requests import SampleRequest
from coopmap.data.samples import collate
from coopmap.types import Batch, SkippedBatch


def largest_training_batch(dataset: FrameDataset) -> list[SampleRequest]:
    """What a micro-batch with the most views asks for; of several, with the most agents, which attend to each other."""
    config = dataset.config
    pool = build_pool(dataset.pairs, dataset.limits, list(config.agent_frequencies))
    sizes = {n: max(1, config.max_views_per_gpu // n) for n, frames in pool.frames_with.items() if len(frames)}
    agents = max(sizes, key=lambda n: (sizes[n] * n, n))
    frames = pool.frames_with[agents].tolist()
    frames = (frames * sizes[agents])[: sizes[agents]]
    return [SampleRequest(frame, agents, number, pool.limits) for number, frame in enumerate(frames)]


def largest_of(batches: Sequence[list[SampleRequest]]) -> list[SampleRequest]:
    """The one with the most views, and of several the most agents."""
    return max(batches, key=lambda requests: (sum(request.num_agents for request in requests), requests[0].num_agents))


def read_batch(dataset: FrameDataset, requests: Sequence[SampleRequest]) -> Batch:
    """The samples of a batch.

    Raises:
        ConfigError: none of them can be read.
    """
    batch = collate([dataset[request] for request in requests])
    if isinstance(batch, SkippedBatch):
        raise ConfigError(f"no sample of the largest batch can be read: {batch.skipped[0]}")
    return batch


class TrialData(L.LightningDataModule):
    """The largest training batch, so many times, and the largest validation batch.

    Attributes:
        data: of the run; it reads and normalizes.
        load_s: what it took to read the training batch, the second time.
        shape: samples and agents of the training batch.
        val_batches: of all ranks together.
    """

    def __init__(self, data: OPV2VDataModule, steps: int) -> None:
        super().__init__()
        self.data, self.steps = data, steps
        self.load_s = 0.0
        self.shape = (0, 0)
        self.val_batches = 0

    def prepare_data(self) -> None:
        """What the run prepares."""
        self.data.prepare_data()

    def train_dataloader(self) -> DataLoader:
        """The largest batch, again and again."""
        dataset = self.data.dataset("train")
        requests = largest_training_batch(dataset)
        self.shape = len(requests), requests[0].num_agents
        read_batch(dataset, requests)  # calibration is looked at once
        began = time.perf_counter()
        batch = read_batch(dataset, requests)
        self.load_s = time.perf_counter() - began
        return DataLoader([batch] * self.steps, batch_size=None)  # type: ignore[arg-type]  # a list is a dataset

    def val_dataloader(self) -> DataLoader:
        """The largest batch."""
        batches: Any = list(self.data.val_dataloader().batch_sampler)  # type: ignore[arg-type]
        self.val_batches = len(batches)
        batch = read_batch(self.data.dataset("val"), largest_of(batches))
        return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]

    def train_relative_poses(self) -> dict[int, Float[Tensor, "n 4 4"]]:
        """Those of the run."""
        return self.data.train_relative_poses()

    def micro_batch(self, batch_idx: int) -> int:
        """Any place in the order does."""
        return batch_idx

    def is_repeated(self, batch_idx: int) -> bool:
        """Every rank measures its own."""
        return False

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch | SkippedBatch:
        """What the run does on the device."""
        return self.data.on_after_batch_transfer(batch, dataloader_idx)
