"""Loaders for training, validation and test."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coopmap.config import Config, ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.data.budget import BadFrameBudget
from coopmap.data.dataset import PanoramaDataset, collate
from coopmap.data.normalization import normalize
from coopmap.data.opv2v import DepthSource, SplitIndex, select_depth_source
from coopmap.data.pose_table import PoseTable
from coopmap.data.sampling import EvalBatchSampler, TrainBatchSampler
from coopmap.geometry.se3_numpy import relative_pose
from coopmap.types import Batch, SkippedBatch

log = logging.getLogger(__name__)


def build_split(
    config: DataConfig,
    split: str,
    seed: int = 0,
    task: TaskConfig | None = None,
    priors: PriorsConfig | None = None,
) -> PanoramaDataset:
    """The dataset of one split (``train``, ``val``, ``test`` or ``test_culvercity``).

    Raises:
        DatasetLayoutError: if a folder or all depth is missing, or the split is empty.
        ConfigError: if no root is given, or no frame has ``min_agents`` agents within communication range.
    """
    index, source = split_source(config, split)
    poses = PoseTable.build(index, config.cache_dir)
    dataset = PanoramaDataset(
        index, poses, source, config, augment=split == "train", seed=seed, task=task, priors=priors
    )
    if len(dataset) == 0:
        raise ConfigError(
            f"{config.root}: no frame of split {split!r} has data.min_agents={config.min_agents} agents within "
            f"data.communication_range_m={config.communication_range_m:g} (of {len(index)} frames)"
        )
    return dataset


def split_source(config: DataConfig, split: str) -> tuple[SplitIndex, DepthSource]:
    """Which frames a split has, and where their depth comes from; raises as :func:`build_split` does."""
    if not config.root:
        raise ConfigError("data.root is not set: give the folder that holds train, validate and test")
    index = SplitIndex.build(config.root, split, config.include_rsu)
    depth = config.depth
    return index, select_depth_source(
        index, config.depth_root, depth.source, depth.kind, depth.max_m, merge_agents=depth.merge_agents
    )


def render_missing_town(config: DataConfig) -> None:
    """Render ``data.town`` if ``data.root`` is to hold it and does not exist yet."""
    if config.town is not None and not Path(config.root).exists():
        from coopmap.synthetic import render_town

        log.info("%s does not exist yet: rendering the synthetic town, once, in a minute or two", config.root)
        render_town(config.town)


class OPV2VDataModule(L.LightningDataModule):
    """Panoramas of an OPV2V-layout dataset.

    Args:
        config: what and how.
        seed: same seed, same samples, whatever the number of loader processes.
        task, priors: which priors the observations hold; none by default.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int = 0,
        task: TaskConfig | None = None,
        priors: PriorsConfig | None = None,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.task, self.priors = config, seed, task, priors
        self._datasets: dict[str, PanoramaDataset] = {}
        self._budgets: dict[str, BadFrameBudget] = {}
        self._resume_at = (0, 0)

    def prepare_data(self) -> None:
        """Render the town if it is missing."""
        render_missing_town(self.config)

    def dataset(self, split: str) -> PanoramaDataset:
        """The dataset of a split, built once."""
        if split not in self._datasets:
            dataset = build_split(self.config, split, self.seed, self.task, self.priors)
            self._budgets[split] = BadFrameBudget(split, len(dataset.index), self.config.bad_frame_budget)
            self._budgets[split].report(dataset.poses.skipped)
            self._datasets[split] = dataset
        return self._datasets[split]

    def describe(self) -> list[str]:
        """Lines for the log: frames, agents and depth source of each split in use."""
        lines = []
        for split in ("train", "val"):
            dataset = self.dataset(split)
            counts = np.bincount(dataset.num_agents)
            groups = ", ".join(f"{number} x {agents} agents" for agents, number in enumerate(counts) if number)
            lines.append(f"{split}: {len(dataset)} of {len(dataset.index)} frames usable ({groups})")
        return [*lines, self.dataset("train").depth_source.describe()]

    def train_relative_poses(self) -> dict[int, Float[Tensor, "n 4 4"]]:
        """``T_0_j`` of the training split by view ``j`` (for baselines): every ordered pair of agents in range.

        In training any agent may be the reference and any other view ``j``, so that all ``j`` share one set.
        """
        dataset = self.dataset("train")
        relative = []
        for frame in dataset.frames.tolist():
            poses = dataset.poses.poses(frame)
            a, b = np.nonzero(dataset.poses.hearing(frame, self.config.communication_range_m))
            a, b = a[a != b], b[a != b]
            relative.append(relative_pose(poses[a], poses[b]))
        stacked = torch.from_numpy(np.concatenate(relative).astype(np.float32))
        return dict.fromkeys(range(1, self.config.max_agents), stacked)

    def train_dataloader(self) -> DataLoader:
        """Exactly ``steps_per_epoch`` batches per rank; after a resume, the rest of the interrupted epoch first."""
        dataset = self.dataset("train")
        config = self.config
        frames_with = {
            count: np.flatnonzero(dataset.group_sizes >= count)
            for count in range(config.min_agents, config.max_agents + 1)
        }
        rank, world_size = self._rank()
        epoch, step = self._resume_at
        sampler = TrainBatchSampler(
            frames_with, config.max_views_per_gpu, config.steps_per_epoch, self.seed, rank, world_size, epoch, step
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        """The validation split, each frame once (at most ``max_val_frames``)."""
        return self._eval_loader("val", self.config.max_val_frames)

    def test_dataloader(self) -> DataLoader:
        """The test split, each frame once."""
        return self._eval_loader("test", None)

    def _eval_loader(self, split: str, limit: int | None) -> DataLoader:
        dataset = self.dataset(split)
        chosen = np.arange(len(dataset))
        if limit is not None and limit < len(chosen):
            chosen = np.linspace(0, len(chosen) - 1, limit).round().astype(int)
        rank, world_size = self._rank()
        sampler = EvalBatchSampler(
            dataset.num_agents[chosen], dataset.frames[chosen], self.config.max_views_per_gpu, rank, world_size
        )
        return self._loader(dataset, sampler)

    def _loader(self, dataset: Dataset, sampler: TrainBatchSampler | EvalBatchSampler) -> DataLoader:
        workers = self.config.num_workers
        # Loader processes are the parallelism. Set here and inherited: a forked process that resizes the thread pool
        # which OpenCV has built in this one waits forever.
        cv2.setNumThreads(0)
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=_prepare_worker,
        )

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def on_before_batch_transfer(self, batch: Batch | SkippedBatch, dataloader_idx: int) -> Batch | SkippedBatch:
        """Report the frames that the loader skipped."""
        if batch.skipped:
            self._budgets[self._current_split()].report(batch.skipped)
        return batch

    def on_after_batch_transfer(self, batch: Batch | SkippedBatch, dataloader_idx: int) -> Batch | SkippedBatch:
        """Normalize the images on the device: loaders give bytes."""
        return normalize(batch) if isinstance(batch, Batch) else batch

    def _current_split(self) -> str:
        trainer = self.trainer
        if trainer is None or trainer.training:
            return "train"
        return "test" if trainer.testing else "val"

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, in batches that were trained on (the loader itself runs ahead)."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()["processed"]
        epoch, step = divmod(done, max(1, int(self.trainer.num_training_batches)))
        return {"epoch": epoch, "step": step, "seed": self.seed, "steps_per_epoch": self.config.steps_per_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the batch after the last that was trained on."""
        for key, value in (("seed", self.seed), ("data.steps_per_epoch", self.config.steps_per_epoch)):
            saved = state_dict[key.removeprefix("data.")]
            if saved != value:
                raise ConfigError(f"cannot resume: the run was made with {key}={saved}, now it is {value}")
        self._resume_at = state_dict["epoch"], state_dict["step"]


def _prepare_worker(worker: int) -> None:
    """Loader processes use one thread, and outlive a stop signal to their group until the main process ends them."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def build_dataset(cfg: Config, split: str = "train") -> PanoramaDataset:
    """Samples of one split: ``train``, ``val`` or ``test``; renders the synthetic town if it is what is missing."""
    datamodule = OPV2VDataModule(cfg.data, cfg.seed, cfg.task, cfg.priors)
    datamodule.prepare_data()
    return datamodule.dataset(split)
