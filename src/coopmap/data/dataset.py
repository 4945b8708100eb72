"""Samples: frames as some of their agents see them, with ground truth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from coopmap.config.data import DataConfig
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.data.foreign import ForeignAgent, draw_foreign, put_apart
from coopmap.data.normalization import normalize
from coopmap.data.opv2v import DepthSource, FrameError, SplitIndex
from coopmap.data.pairs import PairLimits, PairTable
from coopmap.data.pose_prior import pose_prior, stated_sigma
from coopmap.data.pose_table import PoseTable
from coopmap.data.ready import ready_views
from coopmap.data.requests import SampleRequest
from coopmap.data.samples import SkippedSample, observation_of, stacked_poses, target_of
from coopmap.data.ticks import TickTable, add_neighbors
from coopmap.data.vehicles import vehicles_around
from coopmap.data.views import Record, View
from coopmap.data.world import moved_world, world_origin
from coopmap.geometry.se3_numpy import invert
from coopmap.types import Sample, SampleMeta

MAX_ATTEMPTS = 10


class FrameDataset(Dataset[Sample | SkippedSample]):
    """One sample = one frame seen by ``n`` agents within communication range, the reference agent first.

    With ``data.neighbor_ticks`` each agent has as many further views, of the ticks next to that frame, after its own.

    Indexed by a number: ``dataset[i]`` is the ``i``-th frame that has enough agents, on ``train`` with augmentation.
    Or by a :class:`SampleRequest` (what the batch samplers yield): then images are bytes, normalized on the device.

    An unreadable file is skipped: in training its agent is left out of the frame, or another frame is drawn from the
    request's own random stream if too few are left or the file is none of the agents' (a record of a cache, a foreign
    agent's), and the sample reports the culprit; in evaluation, and after :data:`MAX_ATTEMPTS`, a
    :class:`SkippedSample` takes its place.

    Args:
        index: the split.
        poses: its table of poses.
        depth_source: where depth comes from.
        config: panorama, augmentation and sampling.
        augment: draw agents at random and augment (training).
        seed: of ``dataset[i]`` in training.
        task, priors: observations hold the priors that these may give, and no others; none by default.
        pairs: which agents may be put together; by distance alone unless given.
    """

    def __init__(
        self,
        index: SplitIndex,
        poses: PoseTable,
        depth_source: DepthSource,
        config: DataConfig,
        augment: bool,
        seed: int = 0,
        task: TaskConfig | None = None,
        priors: PriorsConfig | None = None,
        pairs: PairTable | None = None,
    ) -> None:
        self.task, self.priors = task or TaskConfig(), priors or PriorsConfig()
        self.index, self.poses, self.depth_source, self.config = index, poses, depth_source, config
        self.augment, self.seed = augment, seed
        self.marks_vehicles = config.vehicle_masks or not augment
        self.ready = ready_views(index, depth_source, config, self.marks_vehicles, augment)
        self.ticks = TickTable(index, config.neighbor_ticks) if config.neighbor_ticks else None
        self.pairs = pairs or PairTable(poses, config.communication_range_m)
        if self.ticks is not None:
            self.pairs = self.pairs.among(self.ticks.has_enough)
        self.limits = PairLimits(min_covisibility=config.sampling.min_covisibility if augment else 0.0)
        self._choose_frames()

    def _choose_frames(self) -> None:
        self.group_sizes = self.pairs.group_sizes(self.limits)
        self.frames = np.flatnonzero(self.group_sizes >= self.config.min_agents)

    def leave_out(self, rows: Bool[np.ndarray, " n"]) -> None:
        """Go on as if the poses of these rows of the index were unreadable: their agents are in no sample."""
        self.poses = replace(self.poses, cords=np.where(rows[:, None], np.nan, self.poses.cords))
        self.pairs = self.pairs.among(~rows)
        self._choose_frames()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def num_agents(self) -> Int[np.ndarray, " n"]:
        """Agents per evaluation sample, for each of ``frames``."""
        return np.minimum(self.group_sizes[self.frames], self.config.max_agents)

    def __getitem__(self, request: SampleRequest | int) -> Sample | SkippedSample:
        """See the class; raises IndexError past the end."""
        if not isinstance(request, SampleRequest):
            position = range(len(self))[int(request)]
            seed = self.seed + position if self.augment else None
            request = SampleRequest(int(self.frames[position]), int(self.num_agents[position]), seed, self.limits)
            return _normalized(self[request])
        if request.seed is not None:
            return self._training_sample(request)
        return self._evaluation_sample(request.frame, self._choose_agents(request, request.frame, None))

    def evaluation_sample(self, frame: int, rows: Int[np.ndarray, " n"]) -> Sample | SkippedSample:
        """A frame of the index as given rows of its agents see it, the reference first; without augmentation."""
        return _normalized(self._evaluation_sample(frame, rows))

    def _evaluation_sample(self, frame: int, rows: Int[np.ndarray, " n"]) -> Sample | SkippedSample:
        try:
            return self._read(frame, rows, None)
        except FrameError as error:
            return SkippedSample((str(error),))

    def _training_sample(self, request: SampleRequest) -> Sample | SkippedSample:
        rng = np.random.default_rng(request.seed)
        frame, skipped = request.frame, []
        unreadable: set[str] = set()
        for _ in range(MAX_ATTEMPTS):
            rows = self._choose_agents(request, frame, rng, unreadable)
            try:
                sample = self._read(frame, rows, rng)
            except FrameError as error:
                skipped.append(str(error))
                culprit = self._culprit(error, frame, rows)
                if culprit is not None:
                    unreadable.add(culprit)
                if culprit is None or not self._has_enough(request, frame, unreadable):
                    unreadable.clear()
                    frame = int(
                        rng.choice(np.flatnonzero(self.pairs.group_sizes(request.limits) >= request.num_agents))
                    )
            else:
                return Sample(sample.observation, sample.target, sample.meta, tuple(skipped))
        return SkippedSample(tuple(skipped))

    def _culprit(self, error: FrameError, frame: int, rows: Int[np.ndarray, " n"]) -> str | None:
        """Whose file cannot be read, of some agents of a frame; ``None`` if leaving out none of them would help."""
        ref, folder = self.index.frame(frame), error.path.parent  # files lie in the folder of their agent
        is_of_them = folder.parent.name == ref.scenario and folder.name in {ref.agents[row] for row in rows}
        return folder.name if is_of_them else None

    def _partners(self, request: SampleRequest, frame: int, unreadable: Collection[str]) -> Bool[np.ndarray, "a a"]:
        """Which agents of a frame may be put together, but for those whose files cannot be read."""
        partners = self.pairs.partners(frame, request.limits)
        if unreadable:
            left_out = np.isin(self.index.frame(frame).agents, list(unreadable))
            partners = partners & ~left_out & ~left_out[:, None]
        return partners

    def _has_enough(self, request: SampleRequest, frame: int, unreadable: Collection[str]) -> bool:
        """Whether a frame has enough agents without some."""
        return bool((self._partners(request, frame, unreadable).sum(axis=1) >= request.num_agents).any())

    def _choose_agents(
        self, request: SampleRequest, frame: int, rng: np.random.Generator | None, unreadable: Collection[str] = ()
    ) -> Int[np.ndarray, " n"]:
        """Rows of the frame's agents, the reference first.

        In training any partners of a reference that ``data.sampling.reference`` decides on; in evaluation the first
        agent that hears enough others, and its nearest.
        """
        partners, number = self._partners(request, frame, unreadable), request.num_agents
        references = np.flatnonzero(partners.sum(axis=1) >= number)
        reference = references[0] if rng is None else self._choose_reference(references, partners, frame, rng)
        others = np.flatnonzero(partners[reference])
        others = others[others != reference]
        if rng is None:
            positions = self.poses.poses(frame)[:, :3, 3]
            distance = np.linalg.norm(positions[others] - positions[reference], axis=-1)
            chosen = np.sort(others[np.argsort(distance, kind="stable")[: number - 1]])
        else:
            chosen = rng.permutation(others)[: number - 1]
        return np.concatenate([[reference], chosen])

    def _choose_reference(
        self, references: Int[np.ndarray, " r"], partners: Bool[np.ndarray, "a a"], frame: int, rng: np.random.Generator
    ) -> int:
        """One of the agents that have enough partners."""
        how = self.config.sampling.reference
        if how == "random":
            return rng.choice(references)
        if how == "first":
            return references[0]
        shared = np.where(partners, np.nan_to_num(self.pairs.covisibility_of(frame)), 0.0)
        np.fill_diagonal(shared, 0.0)
        return references[
            np.argmax(shared[references].sum(axis=1) / np.maximum(1, partners[references].sum(axis=1) - 1))
        ]

    def _read(self, frame: int, rows: Int[np.ndarray, " n"], rng: np.random.Generator | None) -> Sample:
        ref = self.index.frame(frame)
        agents = tuple(ref.agents[row] for row in rows)
        probability, foreign = self.config.sampling.foreign_prob, None
        if rng is not None and probability > 0 and len(rows) > 1:
            foreign = draw_foreign(self.index, self.poses, self.frames, frame, probability, rng)
        if foreign is None:
            records, by_agent = self._views(frame, agents, rng)
        else:
            records, by_agent = self._views(frame, agents[:-1], rng)
            apart, views = self._foreign_views(foreign, by_agent[0][0], rng)
            records, by_agent = {**records, **apart}, [*by_agent, views]
            agents = tuple(records)
        if self.ticks is not None:
            add_neighbors(by_agent, self.ticks, self.index.agent_start[frame] + rows, agents, self.ready, rng)
        views = list(chain.from_iterable(by_agent))
        origin = world_origin(views[0].pose)
        target = target_of(views, len(agents), origin, self.config.is_synthetic and self.depth_source.is_dense)
        if rng is not None and probability > 0:
            last = torch.arange(len(views)) >= len(views) - len(by_agent[-1])
            target = replace(target, foreign=last & (foreign is not None))
        given: dict[str, Tensor] = {}
        if self.task.may_give("depth"):
            given["depth_prior"] = target.depth.clone()
        if self.priors.gives_pose:
            given["pose_prior"], given["pose_sigma"] = self._pose_priors(frame, records, views, origin, rng)
        elif self.task.may_give("pose"):
            given["pose_prior"] = target.pose.clone()
        observation = replace(observation_of(views, len(agents)), **given)
        per_agent = len(views) // len(agents)
        names = tuple(agent for agent in agents for _ in range(per_agent))
        return Sample(observation, target, SampleMeta(ref.scenario, ref.frame, names, tuple(origin.tolist())))

    def _views(
        self, frame: int, agents: tuple[str, ...], rng: np.random.Generator | None
    ) -> tuple[dict[str, Record], list[list[View]]]:
        """What some agents of a frame are made from, and the views of each."""
        records = self.ready.read(frame, self.index.frame(frame), agents)
        vehicles = vehicles_around({agent: record.metadata for agent, record in records.items()})
        return records, [self.ready.views(agent, record, vehicles, rng) for agent, record in records.items()]

    def _foreign_views(
        self, foreign: ForeignAgent, reference: View, rng: np.random.Generator | None
    ) -> tuple[dict[str, Record], list[View]]:
        """The same of an agent of another scenario, which is named with it."""
        ref = self.index.frame(foreign.frame)
        agent = ref.agents[foreign.row]
        records, by_agent = self._views(foreign.frame, (agent,), rng)
        record, views = put_apart(records[agent], by_agent[0], reference)
        return {f"{ref.scenario}/{agent}": record}, views

    def _pose_priors(
        self,
        frame: int,
        records: dict[str, Record],
        views: list[View],
        origin: Float[np.ndarray, " 3"],
        rng: np.random.Generator | None,
    ) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, "v 2"]]:
        """What the views' poses would be if the agents were where the prior has them, and how accurate that is.

        Noise has random numbers of its own: samples with and without a prior differ in nothing else. In evaluation it
        depends on the frame alone.
        """
        noise = np.random.default_rng(frame) if rng is None else rng.spawn(1)[0]
        noise_level = 1.0 if rng is None else noise.random()
        per_agent, poses = len(views) // len(records), []
        for number, record in enumerate(records.values()):
            prior = pose_prior(record.metadata, self.priors, noise_level, noise)
            moved = prior @ invert(record.metadata.pose)
            poses += [moved @ view.pose for view in views[number * per_agent : (number + 1) * per_agent]]
        sigma = torch.tensor(stated_sigma(self.priors, noise_level), dtype=torch.float32)
        return stacked_poses(moved_world(poses, origin)), sigma.expand(len(views), 2)


def _normalized(sample: Sample | SkippedSample) -> Sample | SkippedSample:
    return normalize(sample) if isinstance(sample, Sample) else sample
