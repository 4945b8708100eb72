"""Frames are measured with the depth that training learns from."""

from pathlib import Path

import numpy as np
import pytest

from coopmap.checks.frames import depths_of
from coopmap.checks.reading import AgentReader
from coopmap.data.opv2v import SplitIndex, select_depth_source
from coopmap.geometry.targets import SeenPoints


@pytest.mark.parametrize(("source", "merge_agents"), [("npy", False), ("lidar", False), ("lidar", True)])
def test_depth_is_what_training_reads(source: str, merge_agents: bool, checked_town: Path) -> None:
    index = SplitIndex.build(checked_town / "town", "train")
    depth_root = checked_town / "depth" if source == "npy" else None
    depth_source = select_depth_source(index, depth_root, source, max_depth_m=40, merge_agents=merge_agents)
    ref = index.frame(0)
    readers = [AgentReader(index, depth_source, ref, agent) for agent in ref.agents]
    for reader in readers:
        reader.read(whole=True)
    files = {reader.agent: reader.files for reader in readers}
    found = depths_of(files, depth_source)
    expected = depth_source.read(ref, {agent: each.metadata for agent, each in files.items() if each.metadata})
    assert found.keys() == expected.keys() == set(ref.agents)
    for agent, depth in found.items():
        for one, other in zip(_arrays(depth), _arrays(expected[agent]), strict=True):
            np.testing.assert_array_equal(one, other)


def _arrays(depth: np.ndarray | SeenPoints) -> list[np.ndarray]:
    return [depth.points, depth.camera, depth.pixel, depth.ranges] if isinstance(depth, SeenPoints) else [depth]
