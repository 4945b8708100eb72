"""A scenario in the coordinates of a real map: relative ground truth must not feel where the world's origin is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap.config.data import DataConfig
from coopmap.config.priors import PriorsConfig
from coopmap.data import build_split
from coopmap.data.pose_table import PoseTable
from coopmap.geometry import relative_pose
from coopmap.types import Sample, truth_in_view0

from ..worlds import UTM, move_world

WITHIN_M = 1e-3


def pair(config: DataConfig, far: Path, priors: PriorsConfig) -> list[Sample]:
    samples = [build_split(replace(config, root=root), "val", priors=priors)[0] for root in (config.root, str(far))]
    assert all(isinstance(sample, Sample) for sample in samples)
    return samples


@pytest.mark.parametrize("layout", ["panorama", "cameras"])
def test_relative_ground_truth_is_exact_in_utm_coordinates(
    layout: str, config_of: Callable[..., DataConfig], copied_town: Path
) -> None:
    move_world(copied_town / "validate", UTM)
    near, far = pair(config_of(layout=layout), copied_town, PriorsConfig(agent_pose="gps"))

    truths = [truth_in_view0(sample.target.map(lambda values: values[None])) for sample in (near, far)]
    assert (truths[0].trans - truths[1].trans).abs().max() < WITHIN_M
    assert (truths[0].quat - truths[1].quat).abs().max() < 1e-6
    assert (truths[0].points_world - truths[1].points_world).abs().max() < WITHIN_M
    torch.testing.assert_close(near.target.depth, far.target.depth, rtol=0, atol=1e-4)

    rough = [sample.observation.pose_prior for sample in (near, far)]
    assert ((rough[0] - near.target.pose) - (rough[1] - far.target.pose))[:, :3, 3].abs().max() < WITHIN_M
    relative = [relative_pose(pose[:1], pose) for pose in rough]
    assert (relative[0] - relative[1])[..., :3, 3].abs().max() < WITHIN_M


def test_the_world_moves_by_whole_kilometers_and_only_if_it_must(
    config_of: Callable[..., DataConfig], copied_town: Path
) -> None:
    move_world(copied_town / "validate", UTM)
    near, far = pair(config_of(), copied_town, PriorsConfig())
    world = PoseTable.build(build_split(config_of(), "val").index).poses(0)
    row = [0]  # the reference agent is the frame's first
    assert np.abs(near.target.pose[row, :3, 3].numpy() - world[row, :3, 3]).max() < WITHIN_M
    moved = (far.target.pose - near.target.pose)[:, :3, 3].double().numpy()
    kilometers = (np.array([UTM[1], -UTM[2], UTM[0]]) - moved) / 1000  # OpenCV axes
    assert np.abs(kilometers - kilometers.round()).max() < 1e-6
