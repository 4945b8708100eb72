"""A frame of an OPV2V-layout dataset as what goes into the model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data import FrameDataset
from coopmap.data.normalization import pictures_of
from coopmap.data.opv2v import (
    SPLIT_FOLDERS,
    AgentMetadata,
    CorruptFrameError,
    DatasetLayoutError,
    FrameError,
    FrameRef,
    SplitIndex,
)
from coopmap.data.opv2v.index import OTHER_FOLDERS
from coopmap.data.pose_table import PoseTable
from coopmap.geometry.rig import SLOTS
from coopmap.geometry.se3 import relative_pose
from coopmap.inference.inputs import Views
from coopmap.inference.source import FrameSource
from coopmap.types import Sample


def read_frame(frame: Path | str, config: DataConfig, agents: Sequence[str] = (), with_rays: bool = False) -> Views:
    """Read one OPV2V frame as training does, in the layout of views that the model was trained with.

    An agent whose files cannot be read is left out, unless it was asked for; the views say which, which are too far
    away or too many, and which are road-side units that ``config.include_rsu`` leaves out.

    Args:
        frame: ``ROOT/SPLIT_FOLDER/SCENARIO/FRAME``, for instance ``opv2v/test/2021_08_18_19_48_05/000069``.
        config: layout, panorama, communication range and number of agents; its ``root`` and cache are not used.
        agents: ids, the reference first; by default those that evaluation uses: the first agent with enough others
            in communication range, and its nearest.
        with_rays: the model may use the calibrated rays.

    Raises:
        ConfigError: the frame or an agent is not there.
        DataError: the folder is laid out differently, or files of an agent that was asked for, or of
            all, are unreadable.
    """
    frame = Path(frame).expanduser()
    index, unused = _index_of_frame(frame, tuple(agents), config.include_rsu)
    number = len(index.agents)
    config = replace(config, root=str(index.root), town=None, cache_root=None, keep_in_memory=False)
    config = replace(config, min_agents=1, neighbor_ticks=0)
    if agents:  # as requested, at any distance
        room = max(number, config.max_views_per_gpu)
        config = replace(config, max_agents=number, communication_range_m=1e9, max_views_per_gpu=room)
    sample, index, left_out = _read_what_can_be(frame, index, config, all_of_them=bool(agents))
    observation, target, meta = sample.observation, sample.target, sample.meta
    names = meta.agents
    if observation.slot is not None:
        names = tuple(f"{name} {SLOTS[slot]}" for name, slot in zip(names, observation.slot.tolist(), strict=True))
    stitched = sample
    if observation.images.ndim == 5:  # separate cameras, to be fused by the model
        stitched, *_ = _read_what_can_be(frame, index, replace(config, layout="panorama"), all_of_them=True)
    return Views(
        observation=replace(
            observation, depth_prior=None, pose_prior=None, rays_given=torch.full((len(names),), with_rays)
        ),
        images=_shown(stitched),
        names=names,
        camera_model={"cameras": "pinhole", "mosaic": "mosaic"}.get(config.layout, "cyl"),
        title=f"{meta.scenario}, frame {meta.frame}: agents {', '.join(dict.fromkeys(meta.agents))}",
        true_pose=relative_pose(target.pose[:1], target.pose),
        covered=target.non_ambiguous,
        source=FrameSource(
            index,
            FrameRef(index.split, meta.scenario, meta.frame, tuple(dict.fromkeys(meta.agents))),
            target,
            meta.origin,
        ),
        left_out=(*left_out, *unused),
    )


def _read_what_can_be(
    frame: Path, index: SplitIndex, config: DataConfig, all_of_them: bool
) -> tuple[Sample, SplitIndex, list[str]]:
    """The only frame of an index, without augmentation and ground-truth depth.

    Args:
        frame: for messages.
        index: of it.
        config: of the views.
        all_of_them: an agent that cannot be read is an error.

    Returns:
        The sample, the index of the agents that can be read, and what is not in the sample for which reason.
    """
    dataset = FrameDataset(index, PoseTable.build(index), NoDepth(), config, augment=False)
    sample = dataset[0] if len(dataset) else None
    left_out: list[str] = []
    if dataset.poses.skipped or not isinstance(sample, Sample):
        ref = index.frame(0)
        faults = {agent: _fault(dataset, ref, agent) for agent in ref.agents}
        left_out = [str(fault) for fault in faults.values() if fault is not None]
        readable = [agent for agent, fault in faults.items() if fault is None]
        if all_of_them or not readable:
            raise CorruptFrameError(frame, "; ".join(left_out) or "no agent can be read")
        index = replace(
            index,
            agents=np.array(readable, dtype=np.bytes_),
            agent_start=np.array([0, len(readable)], dtype=np.int32),
            frame_agents=np.arange(len(readable), dtype=np.int32),
        )
        sample = FrameDataset(index, PoseTable.build(index), NoDepth(), config, augment=False)[0]
        if not isinstance(sample, Sample):
            raise CorruptFrameError(frame, "; ".join(sample.skipped))
    left_out += [
        f"{_called(agent)}: not among the {config.max_agents} (data.max_agents) nearest cars within "
        f"{config.communication_range_m:g} m (data.communication_range_m); agents=... names others"
        for agent in index.frame(0).agents
        if agent not in sample.meta.agents
    ]
    return sample, index, left_out


def _called(agent: str) -> str:
    """An agent in a message."""
    return f"road-side unit {agent}" if agent.startswith("-") else f"car {agent}"


def _fault(dataset: FrameDataset, ref: FrameRef, agent: str) -> FrameError | None:
    """Why an agent cannot be read, if it cannot."""
    try:
        dataset.ready.read(0, ref, [agent])
    except FrameError as error:
        return error
    return None


def _shown(sample: Sample) -> UInt8[np.ndarray, "v h w 3"]:
    """The images that the model sees, as 8-bit RGB; black where no camera looks."""
    shown = pictures_of(sample.observation.images)
    shown[~sample.target.non_ambiguous.numpy()] = 0
    return shown


def _index_of_frame(frame: Path, agents: tuple[str, ...], include_rsu: bool) -> tuple[SplitIndex, list[str]]:
    """An index of only this frame, its agents in the requested order; what stays out of it, with the reason."""
    frame = frame.absolute()
    name = frame.name.removesuffix(".yaml")
    scenario, split_folder = frame.parent, frame.parent.parent
    splits = {name: split for split, names in OTHER_FOLDERS.items() for name in names}
    splits = {folder: split for split, folder in SPLIT_FOLDERS.items()} | splits
    layout = f"Expected frame=ROOT/{{{','.join(splits)}}}/SCENARIO/FRAME"
    if split_folder.name not in splits:
        raise DatasetLayoutError(frame, f"'{split_folder.name}' is not the folder of a split", layout)
    if not scenario.is_dir():
        raise DatasetLayoutError(scenario, "there is no such scenario", layout)
    folders = {path.name for path in scenario.iterdir() if path.is_dir() and re.fullmatch(r"-?\d+", path.name)}
    present = sorted(
        (agent for agent in folders if (scenario / agent / f"{name}.yaml").is_file()),
        key=lambda agent: (agent[0] == "-", abs(int(agent))),
    )
    if not present:
        frames = sorted({path.stem for agent in folders for path in (scenario / agent).glob("*.yaml")})
        near = difflib.get_close_matches(name, frames, n=1, cutoff=0)
        hint = f" (nearest: {near[0]})" if near else ""
        raise ConfigError(f"frame={frame}: no agent of this scenario has a file {name}.yaml{hint}")
    for agent in agents:
        if agent not in present:
            raise ConfigError(
                f"agents={','.join(agents)}: no agent {agent} in this frame; there are {', '.join(present)}"
            )
    if len(set(agents)) < len(agents):
        raise ConfigError(f"agents={','.join(agents)}: an agent is named twice")
    chosen = agents or tuple(agent for agent in present if include_rsu or agent[0] != "-")
    if not chosen:
        raise ConfigError(f"frame={frame}: only road-side units ({', '.join(present)}); name them with agents=...")
    unused = [
        f"{_called(agent)}: data.include_rsu=false; data.include_rsu=true or agents=... takes it"
        for agent in present
        if not agents and agent not in chosen
    ]
    index = SplitIndex(
        root=split_folder.parent,
        split=splits[split_folder.name],
        folder=split_folder.name,
        scenarios=np.char.encode(np.array([scenario.name]), "utf-8"),
        agents=np.array(chosen, dtype=np.bytes_),
        frame_names=np.array([name], dtype=np.bytes_),
        frame_scenario=np.zeros(1, dtype=np.int32),
        agent_start=np.array([0, len(chosen)], dtype=np.int32),
        frame_agents=np.arange(len(chosen), dtype=np.int32),
    )
    return index, unused


class NoDepth:
    """A depth source without depth: inference needs no ground truth."""

    is_dense = True

    def first_path(self, ref: FrameRef, agent: str) -> Path:
        """There is none."""
        raise FileNotFoundError("inference reads no depth")

    def paths(self, ref: FrameRef, agent: str) -> list[Path]:
        """See :class:`~coopmap.data.opv2v.DepthSource`."""
        return []

    def read(self, ref: FrameRef, agents: Mapping[str, AgentMetadata]) -> dict[str, Float32[np.ndarray, "k h w"]]:
        """Zeros of the cameras' size."""
        return {
            agent: np.zeros((len(data.rig.intrinsics), *data.rig.image_size), np.float32)
            for agent, data in agents.items()
        }

    def describe(self) -> str:
        """One line for the log."""
        return "no depth"
