"""Steps and batch sizes of training and validation on this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from coopmap.config import Config
from coopmap.data.opv2v import SplitIndex
from coopmap.data.pairs import PairLimits, PairTable
from coopmap.data.pose_table import PoseTable
from coopmap.data.sampling import EvalBatchSampler


@dataclass(frozen=True)
class Batches:
    """What the loaders of a split give.

    Attributes:
        ranks: processes that train.
        steps: batches per rank and epoch.
        sizes: samples per rank and batch, by agents per sample.
        frames: frames with at least (training) or exactly (evaluation) so many agents.
        passes: how often an epoch sees each frame, by agents per sample.
        agents: agents per sample, fewest and most.
    """

    ranks: int
    steps: int
    sizes: dict[int, int]
    frames: dict[int, int]
    passes: dict[int, float]

    @property
    def agents(self) -> tuple[int, int]:
        """Agents per sample, fewest and most; zero without any frame."""
        counts = [count for count, number in self.frames.items() if number]
        return (min(counts), max(counts)) if counts else (0, 0)


def plan_batches(config: Config, index: SplitIndex) -> Batches:
    """The batches of a split, as the loaders will make them."""
    data, ranks = config.data, num_ranks(config)
    sizes_of = PairTable(PoseTable.build(index), data.communication_range_m).group_sizes(PairLimits())
    usable = np.flatnonzero(sizes_of >= data.min_agents)
    if index.split == "train":
        frames = {n: int((sizes_of >= n).sum()) for n in data.agent_frequencies}
        frames = {n: number for n, number in frames.items() if number}
        sizes = {n: max(1, data.max_views_per_gpu // n) for n in frames}
        drawn = {n: data.agent_frequencies[n] for n in frames}
        each = {n: ranks * config.batches_per_epoch * share / sum(drawn.values()) for n, share in drawn.items()}
        passes = {n: each[n] * sizes[n] / frames[n] for n in frames}
        return Batches(ranks, config.batches_per_epoch, sizes, frames, passes)
    limit = data.max_val_frames if index.split == "val" else None
    if limit is not None and limit < len(usable):
        usable = usable[np.linspace(0, len(usable) - 1, limit).round().astype(int)]
    agents = np.minimum(sizes_of[usable], data.max_agents)
    frames = dict(sorted(Counter(agents.tolist()).items()))
    sizes = {n: max(1, data.max_views_per_gpu // n) for n in frames}
    steps = len(EvalBatchSampler(agents, usable, data.max_views_per_gpu, 0, ranks)) if len(usable) else 0
    return Batches(ranks, steps, sizes, frames, dict.fromkeys(frames, 1.0))


def num_ranks(config: Config) -> int:
    """Processes that Lightning will start here."""
    import torch

    trainer = config.trainer
    devices, nodes = trainer.devices, trainer.num_nodes or 1
    if devices in ("auto", -1):
        found = torch.cuda.device_count() if trainer.accelerator != "cpu" else 0
        return max(1, found) * nodes
    return (len(devices) if isinstance(devices, list) else devices) * nodes
