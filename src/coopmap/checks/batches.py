"""Steps and batch sizes of training and validation on this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from coopmap.config import Config, ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.cache_folder import with_usable_cache
from coopmap.data.opv2v import DepthSource, SplitIndex
from coopmap.data.order import Curriculum, GlobalOrder, build_pool
from coopmap.data.pairs import PairLimits, PairTable
from coopmap.data.pose_table import PoseTable
from coopmap.data.sampling import EvalBatchSampler
from coopmap.data.ticks import TickTable


@dataclass(frozen=True)
class Batches:
    """What the loaders of a split give.

    Attributes:
        ranks: processes that train.
        steps: batches per rank and epoch.
        sizes: samples per rank and batch, by agents per sample.
        frames: frames with at least (training) or exactly (evaluation) so many agents.
        passes: how often an epoch sees each frame, by agents per sample.
        is_measured: the co-visibility that training asks for was measured; else frames and passes do without it.
        refusal: what training has to say of a curriculum or numbers of agents that no frame suits; empty if nothing.
        agents: agents per sample, fewest and most.
    """

    ranks: int
    steps: int
    sizes: dict[int, int]
    frames: dict[int, int]
    passes: dict[int, float]
    is_measured: bool = True
    refusal: str = ""

    @property
    def agents(self) -> tuple[int, int]:
        """Agents per sample, fewest and most; zero without any frame."""
        counts = [count for count, number in self.frames.items() if number]
        return (min(counts), max(counts)) if counts else (0, 0)


def plan_batches(config: Config, index: SplitIndex, source: DepthSource | None = None) -> Batches:
    """The batches of a split, as the loaders will make them.

    Args:
        config: of the run.
        index: the split.
        source: reads all depth of a training split that is drawn from by co-visibility; ``None`` = do without.
    """
    data, ranks = config.data, num_ranks(config)
    is_train = index.split == "train"
    by_share = is_train and data.sampling.draws_by_covisibility
    pairs = _pairs(data, index, source if by_share else None)
    is_measured = not by_share or source is not None
    limits = PairLimits(min_covisibility=data.sampling.min_covisibility if by_share and is_measured else 0.0)
    sizes_of = pairs.group_sizes(limits)
    usable = np.flatnonzero(sizes_of >= data.min_agents)
    if is_train:
        frames = {n: int((sizes_of >= n).sum()) for n in data.agent_frequencies}
        frames = {n: number for n, number in frames.items() if number}
        sizes = {n: max(1, data.max_views_per_gpu // n) for n in frames}
        drawn = {n: data.agent_frequencies[n] for n in frames}
        each = {n: ranks * config.batches_per_epoch * share / sum(drawn.values()) for n, share in drawn.items()}
        passes = {n: each[n] * sizes[n] / frames[n] for n in frames}
        refusal = _refusal(data, pairs, limits) if frames and is_measured else ""
        return Batches(ranks, config.batches_per_epoch, sizes, frames, passes, is_measured, refusal)
    limit = data.max_val_frames if index.split == "val" else None
    if limit is not None and limit < len(usable):
        usable = usable[np.linspace(0, len(usable) - 1, limit).round().astype(int)]
    agents = np.minimum(sizes_of[usable], data.max_agents)
    frames = dict(sorted(Counter(agents.tolist()).items()))
    sizes = {n: max(1, data.max_views_per_gpu // n) for n in frames}
    steps = len(EvalBatchSampler(agents, usable, data.max_views_per_gpu, 0, ranks)) if len(usable) else 0
    return Batches(ranks, steps, sizes, frames, dict.fromkeys(frames, 1.0))


def shortage(data: DataConfig, split: str, batches: Batches) -> str:
    """Why training or evaluation would refuse a split for its frames; empty if it would not."""
    if batches.frames:
        return batches.refusal
    least, ticks = data.sampling.min_covisibility if split == "train" else 0.0, data.neighbor_ticks
    return (
        f"data.min_agents={data.min_agents} within data.communication_range_m={data.communication_range_m:g}"
        + (f" and data.sampling.min_covisibility={least:g}" if least > 0 and batches.is_measured else "")
        + (f", each in data.neighbor_ticks={ticks} more frames" if ticks else "")
    )


def _pairs(data: DataConfig, index: SplitIndex, source: DepthSource | None) -> PairTable:
    """Pairs of agents that samples may be made of, with their co-visibility if there is a source to measure it on."""
    poses, covisibility = PoseTable.build(index), None
    if source is not None:
        from coopmap.data.covisibility import split_covisibility

        folder = with_usable_cache(data).cache_dir
        covisibility = split_covisibility(index, poses, source, data.communication_range_m, folder, data.num_workers)
    pairs = PairTable(poses, data.communication_range_m, covisibility)
    return pairs.among(TickTable(index, data.neighbor_ticks).has_enough) if data.neighbor_ticks else pairs


def _refusal(data: DataConfig, pairs: PairTable, limits: PairLimits) -> str:
    """The error with which training's order of frames would refuse them."""
    sampling, numbers = data.sampling, list(data.agent_frequencies)
    try:
        if sampling.curriculum.is_on:
            Curriculum(sampling.curriculum, limits, 1, lambda _: 0, lambda stage: build_pool(pairs, stage, numbers))
        GlobalOrder(build_pool(pairs, limits, numbers), 1, 1, 0, frequencies=sampling.agents or None)
    except ConfigError as error:
        return str(error)
    return ""


def num_ranks(config: Config) -> int:
    """Processes that Lightning will start here."""
    import torch

    trainer = config.trainer
    devices, nodes = trainer.devices, trainer.num_nodes or 1
    if devices in ("auto", -1):
        found = torch.cuda.device_count() if trainer.accelerator != "cpu" else 0
        return max(1, found) * nodes
    return (len(devices) if isinstance(devices, list) else devices) * nodes
