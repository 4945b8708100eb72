"""The samples of an evaluation: a split, or a list of frames."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from coopmap.config import Config, ConfigError
from coopmap.data import OPV2VDataModule
from coopmap.data.budget import BadFrameBudget
from coopmap.data.dataset import FrameDataset
from coopmap.data.opv2v.errors import DatasetLayoutError
from coopmap.data.opv2v.protocol import read_street
from coopmap.data.samples import SkippedSample
from coopmap.data.sampling import EvalBatchSampler
from coopmap.data.splits import render_missing_town
from coopmap.evaluation.frames import FrameList, ListedFrames, find_sample, find_samples, splits_of
from coopmap.types import Sample, SampleMeta

log = logging.getLogger(__name__)


class EvaluationData(OPV2VDataModule):
    """Provides the samples of an evaluation as the validation loader.

    Args:
        config: data, seed, task and priors.
        split: to evaluate on, and the prefix of the metrics.
        frames: to evaluate on instead.

    Attributes:
        num_requested: samples to be measured, on all ranks.
        num_available: usable frames of the split; ``data.max_val_frames`` may limit the samples to some of them.
        num_too_few: frames of the split that are not usable, with fewer than ``data.min_agents`` agents in range.
    """

    def __init__(self, config: Config, split: str, frames: FrameList | None = None) -> None:
        data = config.data if frames is None else replace(config.data, min_agents=1)  # the list says how many
        super().__init__(data, config.seed, config.task, config.priors)
        self.split, self.frames = split, frames
        self._probed = (split,)  # not those of listed frames, whose agents are given
        self._to_train = False
        self.num_requested = self.num_available = self.num_too_few = 0
        self._streets: dict[str, dict[str, str]] = {}
        self._samples: FrameDataset | ListedFrames | None = None
        self._elsewhere: tuple[int, Sample] | None = None  # the last that was read, and its number

    def prepare_data(self) -> None:
        """Render the town if it is missing; co-visibility of the training split chooses no sample here."""
        render_missing_town(self.config)

    def val_dataloader(self) -> DataLoader:
        """Each sample once, over all ranks."""
        if self.frames is not None:
            return self._list_loader(self.frames)
        self._samples = dataset = self.dataset(self.split)
        self.num_available, self.num_too_few = len(dataset), len(dataset.index) - len(dataset)
        limit = self.config.max_val_frames if self.split == "val" else None
        self.num_requested = min(limit or self.num_available, self.num_available)
        return self._eval_loader(self.split, limit)

    def _list_loader(self, frames: FrameList) -> DataLoader:
        most = max(frames.frames, key=lambda frame: len(frame.agents))
        if len(most.agents) > self.config.max_agents:
            raise ConfigError(
                f"frames={frames.file}: {most.scenario} {most.frame} has {len(most.agents)} agents, more than "
                f"data.max_agents={self.config.max_agents}"
            )
        split_of = self._splits_of(frames)
        self._samples = samples = find_samples(frames, {name: self.dataset(split) for name, split in split_of.items()})
        budget = BadFrameBudget(frames.name, len(samples), self.config.bad_frame_budget, least=0)
        self._budgets[self._current_split()] = budget
        self.num_requested = self.num_available = len(samples)
        rank, world_size = self._rank()
        sampler = EvalBatchSampler(
            samples.num_agents, np.arange(len(samples)), self.config.max_views_per_gpu, rank, world_size
        )
        return self._loader(samples, sampler)

    def split_of(self, scenario: str) -> str:
        """Split that a sample's scenario is in."""
        return self.split if self.frames is None else self._splits_of(self.frames)[scenario]

    def _splits_of(self, frames: FrameList) -> dict[str, str]:
        return splits_of(frames, self.config.root, self.config.splits)

    def street_of(self, scenario: str) -> dict[str, str]:
        """What a sample's scenario says of its street; nothing in most data."""
        if scenario not in self._streets:
            index = self.dataset(self.split_of(scenario)).index
            self._streets[scenario] = read_street(index.root / index.folder / scenario)
        return self._streets[scenario]

    @property
    def unreadable(self) -> list[str]:
        """Files that this rank could not read, with the reason."""
        budget = self._budgets.get(self._current_split())
        return list(budget.culprits) if budget is not None else []

    def train_relative_poses(self) -> dict[int, Float[Tensor, "n 4 4"]]:
        """As in training; empty where there is no training split, as on a machine that holds the test split alone."""
        try:
            return super().train_relative_poses()
        except DatasetLayoutError as error:
            log.warning("no training split, so no baseline of its mean pose: %s", error)
            return {}

    def _current_split(self) -> str:
        return self.split if self.frames is None else "listed frames"

    def elsewhere(self, meta: SampleMeta) -> Sample | None:
        """A sample of another scenario than that of one that is measured, with at least as many agents.

        The nearest before it in the split or list, else the nearest after it, that can be read: the same on any number
        of ranks. ``None`` if there is none.
        """
        assert self._samples is not None
        own = self._places.index((meta.scenario, meta.frame))
        is_other = np.array([scenario != meta.scenario for scenario, _ in self._places])
        found = np.flatnonzero(is_other & (self._samples.num_agents >= len(dict.fromkeys(meta.agents))))
        for number in (*found[found < own][::-1].tolist(), *found[found > own].tolist()):
            if self._elsewhere is None or self._elsewhere[0] != number:
                sample = self._samples[number]
                if isinstance(sample, SkippedSample):
                    continue
                self._elsewhere = number, sample
            return self._elsewhere[1]
        return None

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        """Scenario and frame of all samples."""
        if isinstance(self._samples, ListedFrames):
            refs = [each.dataset.index.frame(each.frame) for each in self._samples.samples]
        else:
            assert self._samples is not None
            refs = [self._samples.index.frame(frame) for frame in self._samples.frames.tolist()]
        return [(ref.scenario, ref.frame) for ref in refs]

    def read_again(self, meta: SampleMeta) -> Sample | SkippedSample:
        """A sample that was measured, for the pictures of the report."""
        sample = find_sample(meta, self.dataset(self.split_of(meta.scenario)))
        return sample.dataset.evaluation_sample(sample.frame, sample.rows)
