"""Baselines that use sensors instead of a model: noisy GPS, GPS refined by LiDAR registration, classical matching."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from coopmap.data.opv2v import AgentMetadata, FrameError, FrameRef, SplitIndex, read_agent, read_images
from coopmap.data.opv2v.depth import LidarDepth
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.evaluation import classical, icp, xfeat
from coopmap.evaluation.classical import ClassicalPoses, PairPose, classical_poses
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.keypoints import Features, find_keypoints
from coopmap.evaluation.pairs import average_pairs
from coopmap.evaluation.records import SampleRecord
from coopmap.evaluation.sift import Sift
from coopmap.evaluation.xfeat import XFeat
from coopmap.geometry import relative_pose
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

log = logging.getLogger(__name__)

MAX_RANGE_M = 150.0
"""Of LiDAR points at keypoints."""


@dataclass(frozen=True)
class SensorPoses:
    """Poses of a sample's agents from sensors.

    Attributes:
        true: ``T_world_agent``.
        gps: the same from ``predicted_ego_pos``, converted from the vehicle to its LiDAR; NaN of agents without.
        gps_icp: in one frame after registration, NaN likewise; ``None`` if it was not requested or a LiDAR sweep is
            unreadable.
        registered: share of the pairs whose LiDAR sweeps could be registered.
        matched: from the camera images, by what its rows begin with; empty likewise.
        problems: what is missing or could not be read, by method.
    """

    true: Float[np.ndarray, "n 4 4"]
    gps: Float[np.ndarray, "n 4 4"]
    gps_icp: Float[np.ndarray, "n 4 4"] | None = None
    registered: float = float("nan")
    matched: dict[str, ClassicalPoses] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()


def read_sensor_poses(
    index: SplitIndex,
    frame: FrameRef,
    agents: Sequence[str],
    with_icp: bool,
    features: Mapping[str, Features] = MappingProxyType({}),
) -> SensorPoses:
    """GPS poses of some agents, and their registration and matching if requested.

    Args:
        index: of the frame's split.
        frame: which.
        agents: the reference first.
        with_icp: register the LiDAR sweeps.
        features: match the camera images by these, named as their rows.
    """
    metadata = {agent: read_agent(index.yaml_path(frame, agent), with_vehicles=False) for agent in agents}
    true, gps = (np.stack([getattr(each, name) for each in metadata.values()]) for name in ("pose", "pose_prior"))
    registered, share, matched, problems = None, float("nan"), {}, []
    placed = np.isfinite(gps).all(axis=(1, 2))
    if not placed.all():
        lacking = str(index.yaml_path(frame, agents[int(placed.argmin())]))
        problems = [(method, f"{lacking} has no predicted_ego_pos") for method in ("gps", "gps_icp")[: 1 + with_icp]]
    if with_icp and placed.sum() > 1:
        try:
            sweeps = [read_sweep(index.lidar_path(frame, agent)) for agent in compress(agents, placed)]
            found, count = icp.register_sweeps(sweeps, gps[placed])
            registered = np.full_like(gps, np.nan)
            registered[placed] = found
            share = count / (len(agents) * (len(agents) - 1) // 2)
        except FrameError as error:
            problems = [*problems[:1], ("gps_icp", str(error))]
    if features and len(agents) > 1:
        try:
            matched = _match_images(index, frame, metadata, features)
        except FrameError as error:
            problems.append(("matching", str(error)))
    return SensorPoses(true, gps, registered, share, matched, tuple(problems))


def _match_images(
    index: SplitIndex, frame: FrameRef, metadata: dict[str, AgentMetadata], features: Mapping[str, Features]
) -> dict[str, ClassicalPoses]:
    seen = LidarDepth(index, MAX_RANGE_M, merge_agents=False).read(frame, metadata)
    rigs = [each.rig for each in metadata.values()]
    images = [
        read_images([index.image_path(frame, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT], each.rig.image_size)
        for agent, each in metadata.items()
    ]
    matched = {}
    for name, kind in features.items():
        keypoints = [
            find_keypoints(kind, taken, rig, seen[agent])
            for agent, taken, rig in zip(metadata, images, rigs, strict=True)
        ]
        matched[name] = classical_poses(kind, keypoints, rigs)
    return matched


class _SensorPoseDataset(Dataset[SensorPoses]):
    """Runs :func:`read_sensor_poses` in loader processes."""

    def __init__(
        self,
        records: Sequence[SampleRecord],
        indices: Sequence[SplitIndex],
        with_icp: bool,
        features: Mapping[str, Features],
    ) -> None:
        self.asked = [(record.meta.scenario, record.meta.frame, record.agents) for record in records]
        self.indices, self.methods = list(indices), (with_icp, features)

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, number: int) -> SensorPoses:
        torch.set_num_threads(1)
        index, (scenario, frame, agents) = self.indices[number], self.asked[number]
        return read_sensor_poses(index, FrameRef(index.split, scenario, frame, agents), agents, *self.methods)


@dataclass(frozen=True)
class Gaps:
    """What baselines lack on one rank, by method.

    Attributes:
        absent: why a method is not there at all.
        incomplete: what is missing or could not be read, for each sample in which a method has no answer, or none for
            some pairs.
    """

    absent: dict[str, str] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)


def notes_about(gaps: Sequence[Gaps]) -> dict[str, str]:
    """Notes about methods that are absent or incomplete, from what all ranks lack."""
    notes = {method: reason for share in gaps for method, reason in share.absent.items()}
    for method in sorted({method for share in gaps for method in share.incomplete}):
        lines = sorted(line for share in gaps for line in share.incomplete.get(method, []))
        samples = "1 sample" if len(lines) == 1 else f"{len(lines)} samples"
        notes[method] = f"no answer, or none for some pairs, in {samples}: {lines[0]}"
    return notes


def add_baselines(records: Sequence[SampleRecord], data: EvaluationData, asked: Sequence[str]) -> Gaps:
    """Add the baselines that are read from sensors to records.

    Args:
        records: measured samples, so that their metadata is readable.
        data: of the evaluation.
        asked: names of baselines, see :class:`~coopmap.config.evaluate.EvaluateConfig`.

    Returns:
        What they lack; :func:`notes_about` says it of all ranks.
    """
    gaps = Gaps()
    needed = (("icp", "gps_icp", icp), ("matching", "matching_rig", classical), ("matching", "xfeat", xfeat))
    for name, method, module in needed:
        if name in asked and not module.is_available():
            gaps.absent[method] = module.INSTALL_HINT
    if "mean" in asked and records and not any("training_mean" in record.poses for record in records):
        gaps.absent["training_mean"] = "no training split in data.root, or no two agents in range in it"
    if not records or not {"gps", "icp", "matching"}.intersection(asked):
        return gaps
    indices = [data.dataset(data.split_of(record.meta.scenario)).index for record in records]
    with_icp = "icp" in asked and "gps_icp" not in gaps.absent
    features: dict[str, Features] = {}
    if "matching" in asked:
        features = {"matching": Sift()} | ({} if "xfeat" in gaps.absent else {"xfeat": XFeat()})
    dataset = _SensorPoseDataset(records, indices, with_icp, features)
    workers = min(data.config.num_workers, len(records))
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    log.info("%s: %d samples", ", ".join(name for name in asked if name in ("gps", "icp", "matching")), len(records))
    for record, found in zip(records, loader, strict=True):
        _add(record, found, "gps" in asked)
        for method, problem in found.problems:
            if method == "gps" and "gps" not in asked:
                continue
            gaps.incomplete.setdefault(method, []).append(problem)
    return gaps


def _add(record: SampleRecord, found: SensorPoses, with_gps: bool) -> None:
    true = torch.from_numpy(found.true)
    gps = torch.from_numpy(found.gps)
    if with_gps and gps.isfinite().any():
        record.add_pairs("gps", relative_pose(gps[:, None], gps[None]), true)
    if found.gps_icp is not None:
        registered = torch.from_numpy(found.gps_icp)
        record.add_pairs("gps_icp", relative_pose(registered[:, None], registered[None]), true)
        record.figures["gps_icp_registered"] = found.registered
    for name, poses in found.matched.items():
        record.add_pairs(name, _averaged(poses.with_ranges, len(true)), true)
        if poses.of_rigs is not None:
            record.add_pairs(f"{name}_rig", _averaged(poses.of_rigs, len(true)), true)


def _averaged(poses: Sequence[PairPose | None], num_agents: int) -> Float[torch.Tensor, "n n 4 4"]:
    """All pairs; each counts by the number of its matches that agree."""
    nowhere = PairPose(np.eye(4), 0)
    known = [nowhere if pose is None else pose for pose in poses]
    pose = torch.from_numpy(np.stack([each.pose for each in known]))
    agreeing = torch.tensor([float(each.agreeing) for each in known])
    return average_pairs(pose[None], agreeing[None], num_agents)[0]


def _as_it_is(value: Any) -> Any:
    return value
