"""The dataset of a split, from its configuration."""

from __future__ import annotations

import logging

from coopmap.config import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.data.covisibility import split_covisibility
from coopmap.data.dataset import FrameDataset
from coopmap.data.depth_probe import check_depth
from coopmap.data.opv2v import FrameError, SplitIndex, read_agent
from coopmap.data.pairs import PairTable
from coopmap.data.pose_table import PoseTable
from coopmap.data.probing import unreadable_cars, why_no_frame
from coopmap.data.splits import lacks_images, split_source, without_images

log = logging.getLogger(__name__)


def build_split(
    config: DataConfig,
    split: str,
    seed: int = 0,
    task: TaskConfig | None = None,
    priors: PriorsConfig | None = None,
    refuse_depth: bool = True,
    probe: bool = False,
    to_train: bool | None = None,
) -> FrameDataset:
    """The dataset of one split (``train``, ``val``, ``test`` or ``test_culvercity``).

    Agents are drawn and augmented ``to_train``, by default on ``train`` alone. Depth files and sweeps that hold
    something else than meters are refused, or else warned of (``refuse_depth=False``, to look at it). With ``probe`` a
    few files of each car are read; cars that can never be read are left out of their frames.

    Raises:
        DatasetLayoutError: if a folder or all depth is missing or no depth, or the split is empty.
        ConfigError: if no root is given, no frame has ``min_agents`` agents within communication range, or most cars
            cannot be read.
    """
    index, source = split_source(config, split)
    _mention_calibration(index)
    if config.cache_root is None:
        check_depth(index, source, refuse_depth)
    poses = PoseTable.build(index, config.cache_dir)
    to_train = split == "train" if to_train is None else to_train
    covisibility = None
    if to_train and config.sampling.needs_covisibility:
        if lacks_images(config):
            raise without_images(
                config, "data.sampling asks for the co-visibility of pairs, which is measured on depth"
            )
        covisibility = split_covisibility(
            index, poses, source, config.communication_range_m, config.cache_dir, config.num_workers
        )
    pairs = PairTable(poses, config.communication_range_m, covisibility)
    dataset = FrameDataset(index, poses, source, config, to_train, seed, task, priors, pairs)
    if probe:
        usable = len(dataset)
        dataset.leave_out(unreadable_cars(dataset))
        if len(dataset) < usable:
            log.warning(
                "%s: %d of %d frames have fewer than data.min_agents=%d agents without these cars: they are left out",
                split, usable - len(dataset), usable, config.min_agents,
            )  # fmt: skip
    if len(dataset) == 0:
        raise ConfigError(
            f"{config.root}: no frame of split {split!r} has data.min_agents={config.min_agents} agents within "
            f"data.communication_range_m={config.communication_range_m:g} (of {len(index)} frames)"
            + (
                f" and data.sampling.min_covisibility={dataset.limits.min_covisibility:g}"
                if covisibility is not None
                else ""
            )
            + (f", each in data.neighbor_ticks={config.neighbor_ticks} more frames" if config.neighbor_ticks else "")
            + why_no_frame(index, dataset.poses, config.min_agents)
        )
    return dataset


def _mention_calibration(index: SplitIndex) -> None:
    """Read the calibration of a frame, whose warnings loader processes would not give."""
    ref = index.frame(0)
    for agent in ref.agents:
        try:
            read_agent(index.yaml_path(ref, agent), with_vehicles=False)
        except FrameError:
            continue  # reported when it is needed
