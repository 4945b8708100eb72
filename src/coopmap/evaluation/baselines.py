"""Baselines that use other sensors instead of a model: noisy GPS, and GPS refined by registering the LiDAR sweeps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from coopmap.data.opv2v import FrameError, FrameRef, SplitIndex, read_agent
from coopmap.data.opv2v.lidar import read_sweep
from coopmap.evaluation.icp import register_sweeps
from coopmap.evaluation.records import SampleRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SensorPoses:
    """Pose priors of a sample's agents.

    Attributes:
        true: ``T_world_agent``.
        gps: the same from ``predicted_ego_pos``, converted from the vehicle to its LiDAR.
        gps_icp: ``T_0_agent`` after registration; ``None`` if it was not requested or a LiDAR sweep is unreadable.
        registered: share of the pairs whose LiDAR sweeps could be registered.
        problem: what could not be read.
    """

    true: Float[np.ndarray, "n 4 4"]
    gps: Float[np.ndarray, "n 4 4"]
    gps_icp: Float[np.ndarray, "n 4 4"] | None = None
    registered: float = float("nan")
    problem: str | None = None


def read_sensor_poses(index: SplitIndex, frame: FrameRef, agents: Sequence[str], icp: bool) -> SensorPoses:
    """GPS poses of some agents, and their registration if requested.

    Args:
        index: of the frame's split.
        frame: which.
        agents: the reference first.
        icp: register the LiDAR sweeps.
    """
    metadata = [read_agent(index.yaml_path(frame, agent), with_vehicles=False) for agent in agents]
    true, gps = (np.stack([getattr(agent, name) for agent in metadata]) for name in ("pose", "pose_prior"))
    if not icp or len(agents) < 2:
        return SensorPoses(true, gps)
    try:
        sweeps = [read_sweep(index.lidar_path(frame, agent)) for agent in agents]
    except FrameError as error:
        return SensorPoses(true, gps, problem=str(error))
    registered, count = register_sweeps(sweeps, gps)
    return SensorPoses(true, gps, registered, count / (len(agents) * (len(agents) - 1) // 2))


class _SensorPoseDataset(Dataset[SensorPoses]):
    """Runs :func:`read_sensor_poses` in loader processes."""

    def __init__(self, records: Sequence[SampleRecord], indices: Sequence[SplitIndex], icp: bool) -> None:
        self.asked = [(record.meta.scenario, record.meta.frame, record.agents) for record in records]
        self.indices, self.icp = list(indices), icp

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, number: int) -> SensorPoses:
        torch.set_num_threads(1)
        index, (scenario, frame, agents) = self.indices[number], self.asked[number]
        return read_sensor_poses(index, FrameRef(index.split, scenario, frame, agents), agents, self.icp)


def add_sensor_baselines(
    records: Sequence[SampleRecord], indices: Sequence[SplitIndex], icp: bool, num_workers: int
) -> list[str]:
    """Add the methods ``gps`` and, with ``icp``, ``gps_icp`` to records.

    Args:
        records: measured samples, so that their metadata is readable.
        indices: index of the split of each.
        icp: register the LiDAR sweeps.
        num_workers: loader processes.

    Returns:
        LiDAR sweeps that could not be read.
    """
    loader = DataLoader(
        _SensorPoseDataset(records, indices, icp),
        batch_size=None,
        num_workers=min(num_workers, len(records)),
        collate_fn=_as_it_is,
    )
    problems = []
    for record, found in zip(records, loader, strict=True):
        true = torch.from_numpy(found.true)
        record.add_method("gps", torch.from_numpy(found.gps), true)
        if found.gps_icp is not None:
            record.add_method("gps_icp", torch.from_numpy(found.gps_icp), true)
            record.figures["gps_icp_registered"] = found.registered
        if found.problem is not None:
            problems.append(found.problem)
    return problems


def _as_it_is(value: Any) -> Any:
    return value
