"""Loaders for training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Collection
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
from coopmap.config.schema import RunLength
from coopmap.config.task import TaskConfig
from coopmap.data.budget import BadFrameBudget, BadFrameBudgetError
from coopmap.data.cache_folder import with_usable_cache
from coopmap.data.dataset import FrameDataset
from coopmap.data.leaks import shared_scenarios
from coopmap.data.loader_processes import prepare_worker
from coopmap.data.memory import keep_freed_memory
from coopmap.data.normalization import normalize
from coopmap.data.opv2v import SPLIT_FOLDERS
from coopmap.data.order import Curriculum, GlobalOrder, build_pool, curriculum_steps
from coopmap.data.samples import collate
from coopmap.data.sampling import EvalBatchSampler, Position, TrainBatchSampler, continued
from coopmap.data.split_dataset import build_split
from coopmap.data.splits import render_missing_town, town_is_there
from coopmap.geometry.se3_numpy import relative_pose
from coopmap.types import Batch, SkippedBatch

log = logging.getLogger(__name__)

POSES_AT_ONCE = 16384
MOST_NAMED = 5


class OPV2VDataModule(L.LightningDataModule):
    """Panoramas of an OPV2V-layout dataset.

    Args:
        config: what and how.
        seed: same seed, same samples, whatever the number of loader processes.
        task, priors: which priors the observations hold; none by default.
        length: of the run, for a curriculum; by default it has no end.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int = 0,
        task: TaskConfig | None = None,
        priors: PriorsConfig | None = None,
        length: RunLength | None = None,
    ) -> None:
        super().__init__()
        self.config, self.seed, self.task, self.priors = config, seed, task, priors
        self._length = length or RunLength(None, config.steps_per_epoch)
        self._datasets: dict[str, FrameDataset] = {}
        self._budgets: dict[str, BadFrameBudget] = {}
        self._position = Position()
        self._group: int | None = None
        self._probed: Collection[str] = ()  # splits whose samples are to be read
        self._eval_sampler: EvalBatchSampler | None = None
        self._to_train: bool | None = None  # draw and augment; by default on the training split alone

    def prepare_data(self) -> None:
        """Render the town if it is missing, and measure co-visibility if it is asked for: once, for all ranks."""
        render_missing_town(self.config)
        if self.config.sampling.needs_covisibility and self.config.cache_dir is not None:
            self.dataset("train")

    def dataset(self, split: str) -> FrameDataset:
        """The dataset of a split, built once."""
        if split not in self._datasets:
            self.config = with_usable_cache(self.config)
            dataset = build_split(
                self.config, split, self.seed, self.task, self.priors, True, split in self._probed, self._to_train
            )
            self._budgets[split] = BadFrameBudget(split, len(dataset.index), self.config.bad_frame_budget)
            self._budgets[split].report(dataset.poses.skipped)
            self._datasets[split] = dataset
        return self._datasets[split]

    def check(self) -> None:
        """Index and probe both splits of data that are there already: what is missing ends a run before it starts.

        Raises:
            DatasetLayoutError: a folder or all depth is missing, or a split is empty.
            ConfigError: no frame has enough agents within communication range.
        """
        if self.config.town is None or town_is_there(self.config):
            self._probed = SPLIT_FOLDERS
            for split in ("train", "val"):
                self.dataset(split)

    def describe(self) -> list[str]:
        """Lines for the log: frames, agents and depth source of each split in use."""
        lines = []
        for split in ("train", "val"):
            dataset = self.dataset(split)
            counts = np.bincount(dataset.num_agents)
            groups = ", ".join(f"{number} x {agents} agents" for agents, number in enumerate(counts) if number)
            lines.append(f"{split}: {len(dataset)} of {len(dataset.index)} frames usable ({groups})")
        train, val = self.dataset("train"), self.dataset("val")
        if shared := shared_scenarios(train.index, train.poses, val.index, val.poses):
            log.warning(
                "val holds %d of the scenarios that train holds (%s): its figures are those of streets known by heart",
                len(shared),
                ", ".join(shared[:MOST_NAMED]) + (", ..." if len(shared) > MOST_NAMED else ""),
            )
        return [*lines, train.depth_source.describe()]

    def train_relative_poses(self) -> dict[int, Float[Tensor, "n 4 4"]]:
        """``T_0_j`` of the training split by view ``j`` (for baselines): every ordered pair of agents in range.

        In training any agent may be the reference and any other view ``j``, so that all ``j`` share one set. Empty
        where no two agents are in range.
        """
        dataset = self.dataset("train")
        first, second = dataset.pairs.in_range()
        if len(first) == 0:
            return {}
        parts = [slice(start, start + POSES_AT_ONCE) for start in range(0, len(first), POSES_AT_ONCE)]
        relative = [
            relative_pose(dataset.poses.poses_of(first[part]), dataset.poses.poses_of(second[part])).astype(np.float32)
            for part in parts
        ]
        return dict.fromkeys(range(1, self.config.max_agents), torch.from_numpy(np.concatenate(relative)))

    def train_dataloader(self) -> DataLoader:
        """``steps_per_epoch`` optimizer steps on each rank; after a resume, the rest of the interrupted epoch first."""
        return self.train_dataloader_at(self._position)

    def train_dataloader_at(self, position: Position) -> DataLoader:
        """The same from another position on."""
        dataset = self.dataset("train")
        rank, world_size = self._rank()
        sampler = TrainBatchSampler(self._order(dataset), self._batches_per_epoch, rank, world_size, position)
        return self._loader(dataset, sampler)

    def _order(self, dataset: FrameDataset) -> GlobalOrder:
        """Of all training batches."""
        config, sampling = self.config, self.config.sampling
        numbers = list(config.agent_frequencies)
        curriculum = None
        if sampling.curriculum.is_on:
            curriculum = Curriculum(
                sampling.curriculum,
                dataset.limits,
                curriculum_steps(sampling.curriculum, self._length.steps),
                self._optimizer_step,
                lambda limits: build_pool(dataset.pairs, limits, numbers),
            )
        return GlobalOrder(
            build_pool(dataset.pairs, dataset.limits, numbers),
            config.max_views_per_gpu,
            config.steps_per_epoch,
            self.seed,
            self._group or self._accumulate * self._rank()[1],
            sampling.agents or None,
            dataset.index.frame_scenario if sampling.balance == "scenarios" else None,
            curriculum,
        )

    def _optimizer_step(self, micro_batch: int) -> int:
        """Of the run, that takes a micro-batch of the global order; before the run goes on, as if it always had so."""
        epoch, batch = self._position.batch_of(micro_batch, self._batches_per_epoch, self._rank()[1])
        return epoch * self._length.per_epoch + batch // self._accumulate

    def micro_batch(self, batch_idx: int) -> int:
        """Place in the global order of what this rank trains on as batch ``batch_idx`` of the current epoch."""
        assert self.trainer is not None
        rank, world_size = self._rank()
        epoch = self.trainer.current_epoch
        return rank + self._position.micro_batch_at(epoch, batch_idx, self._batches_per_epoch, world_size)

    @property
    def _accumulate(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer is not None else 1

    @property
    def _batches_per_epoch(self) -> int:
        """Of each rank."""
        return self.config.steps_per_epoch * self._accumulate

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
        if isinstance(sampler, EvalBatchSampler):
            self._eval_sampler = sampler
        workers = self.config.num_workers
        # Loader processes are the parallelism. Set here and inherited: a forked process that resizes the thread pool
        # which OpenCV has built in this one waits forever.
        cv2.setNumThreads(0)
        if workers == 0:
            keep_freed_memory()
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=prepare_worker,
        )

    def is_repeated(self, batch_idx: int) -> bool:
        """Whether a batch of this rank's validation is measured elsewhere, and repeated only to keep step with that."""
        return self._eval_sampler is not None and batch_idx >= self._eval_sampler.num_own

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def on_before_batch_transfer(self, batch: Batch | SkippedBatch, dataloader_idx: int) -> Batch | SkippedBatch:
        """Report the frames that the loader skipped."""
        if batch.skipped:
            budget = self._budgets[self._current_split()]
            budget.report(batch.skipped)
            if isinstance(batch, SkippedBatch) and self._is_training:
                raise BadFrameBudgetError(
                    f"no sample of a training batch can be read, after {len(batch.skipped)} tries; {batch.skipped[0]}"
                )
        return batch

    def skipped_files(self) -> dict[str, list[str]]:
        """Path and reason of each file that was skipped so far, by split."""
        return {split: list(budget.culprits) for split, budget in self._budgets.items() if budget.culprits}

    def on_after_batch_transfer(self, batch: Batch | SkippedBatch, dataloader_idx: int) -> Batch | SkippedBatch:
        """Normalize the images on the device: loaders give bytes."""
        return normalize(batch) if isinstance(batch, Batch) else batch

    @property
    def _is_training(self) -> bool:
        return self.trainer is None or self.trainer.training

    def _current_split(self) -> str:
        if self._is_training:
            return "train"
        assert self.trainer is not None
        return "test" if self.trainer.testing else "val"

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, in batches that were trained on (the loader itself runs ahead)."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.state_dict()["processed"]
        over, step = divmod(done, self._batches_per_epoch)  # validations come before an epoch is counted
        epoch = self.trainer.current_epoch + over
        world_size = self._rank()[1]
        return {
            "epoch": epoch,
            "step": step,
            "micro_batch": self._position.micro_batch_at(epoch, step, self._batches_per_epoch, world_size),
            "group": self._group or self._accumulate * world_size,
            "world_size": world_size,
            "accumulate": self._accumulate,
            "seed": self.seed,
            "steps_per_epoch": self.config.steps_per_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the micro-batch after the last that was trained on, on any number of ranks.

        Raises:
            ConfigError: if the run was made with other settings, or before batches were numbered over all ranks.
        """
        self.check_state(state_dict)
        self._position, self._group = continued(state_dict, self._rank()[1], self._accumulate)

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """See that a saved position means the same here.

        Raises:
            ConfigError: see :meth:`load_state_dict`.
        """
        for key, value in (("seed", self.seed), ("data.steps_per_epoch", self.config.steps_per_epoch)):
            saved = state_dict.get(key.removeprefix("data."))
            if saved != value:
                raise ConfigError(f"cannot resume: the run was made with {key}={saved}, now it is {value}")
        if "micro_batch" not in state_dict:
            raise ConfigError(
                "cannot resume: the checkpoint was written before batches were numbered over all ranks (its data state "
                "has no micro_batch); start a new run from its weights: model.weights=<checkpoint>"
            )


def build_dataset(cfg: Config, split: str = "train") -> FrameDataset:
    """Samples of one split: ``train``, ``val`` or ``test``; renders the synthetic town if it is what is missing."""
    datamodule = OPV2VDataModule(cfg.data, cfg.seed, cfg.task, cfg.priors)
    datamodule.prepare_data()
    return datamodule.dataset(split)
