"""A frame of a data set, read for a preview: the sample, and what the sample does not say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coopmap.data.dataset import FrameDataset
from coopmap.data.normalization import normalize
from coopmap.data.opv2v import FrameError, FrameRef, read_agent
from coopmap.data.pairs import PairLimits
from coopmap.data.samples import SkippedSample
from coopmap.data.sampling import SampleRequest
from coopmap.geometry.rig import Rig
from coopmap.types import Sample


@dataclass(frozen=True, eq=False)
class PreviewFrame:
    """A sample with its origin.

    Attributes:
        sample: without a batch dimension, normalized.
        ref: the frame.
        agents: of the sample, the reference first.
        rigs: their calibration.
        poses: their ``T_world_agent``, without what augmentation turned.
        unheard: the frame's other agents, with their distance from the reference in meters (NaN: unreadable).
    """

    sample: Sample
    ref: FrameRef
    agents: tuple[str, ...]
    rigs: tuple[Rig, ...]
    poses: Float[np.ndarray, "n 4 4"]
    unheard: dict[str, float]

    @property
    def views_per_agent(self) -> int:
        """Views of each agent."""
        return len(self.sample.meta.agents) // len(self.agents)


def read_frame(dataset: FrameDataset, position: int, augment: bool) -> PreviewFrame:
    """Sample number ``position`` of a split.

    Args:
        dataset: the split.
        position: of the sample.
        augment: as training has it, ``build_dataset(config, "train")[position]``; else all agents in range.

    Raises:
        FrameError: files are missing or damaged.
    """
    frame = int(dataset.frames[position])
    if augment:
        request = SampleRequest(frame, int(dataset.num_agents[position]), dataset.seed + position, dataset.limits)
    else:
        request = SampleRequest(frame, int(dataset.pairs.group_sizes(PairLimits())[frame]))
    sample = dataset[request]
    if isinstance(sample, SkippedSample):
        ref = dataset.index.frame(frame)
        raise FrameError(f"{ref.scenario}/{ref.frame}", "; ".join(sample.skipped))
    frame = _frame_number(dataset, sample) if sample.skipped else frame
    ref = dataset.index.frame(frame)
    agents = tuple(dict.fromkeys(sample.meta.agents))
    poses = dict(zip(ref.agents, dataset.poses.poses(frame), strict=True))
    here = poses[agents[0]][:3, 3]
    return PreviewFrame(
        normalize(sample),
        ref,
        agents,
        tuple(read_agent(dataset.index.yaml_path(ref, agent), with_vehicles=False).rig for agent in agents),
        np.stack([poses[agent] for agent in agents]),
        {agent: float(np.linalg.norm(poses[agent][:3, 3] - here)) for agent in ref.agents if agent not in agents},
    )


def _frame_number(dataset: FrameDataset, sample: Sample) -> int:
    """Of the frame that training took for one that could not be read."""
    index, meta = dataset.index, sample.meta
    named = np.flatnonzero(index.frame_names == meta.frame.encode())
    return next(int(i) for i in named if index.frame(int(i)).scenario == meta.scenario)
