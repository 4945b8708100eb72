"""What is kept for later runs is made anew when it is damaged or stale, and never ends a run."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.config.data import PanoramaConfig
from coopmap.data.opv2v import SplitIndex, read_agent
from coopmap.data.pose_table import PoseTable
from coopmap.data.views import panorama_spec
from coopmap.geometry.warp_cache import WarpCache


def damaged(content: bytes) -> dict[str, bytes]:
    """The ways that files break."""
    middle = len(content) // 2
    return {
        "empty": b"",
        "cut": content[:middle],
        "one bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        "header": content[:20] + b"((((((" + content[26:],
        "end": content[:-8] + bytes(8),
        "zeros": bytes(len(content)),
        "other": b"PK\x03\x04" + content,
        "pickle": b"\x80\x04K\x01.",
    }


KINDS = list(damaged(b"0" * 100))


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_table_of_poses_is_read_again(town, tmp_path, kind):
    index = SplitIndex.build(town.root, "val")
    expected = PoseTable.build(index, tmp_path).cords
    (path,) = tmp_path.glob("poses_*.npy")
    whole = path.read_bytes()
    path.write_bytes(damaged(whole)[kind])
    np.testing.assert_array_equal(PoseTable.build(index, tmp_path).cords, expected)
    assert path.read_bytes() == whole


def test_poses_of_an_edited_file_are_read_again_and_only_these(copied_town, tmp_path, monkeypatch):
    index = SplitIndex.build(copied_town, "val")
    before = PoseTable.build(index, tmp_path / "cache").cords
    path = index.yaml_path(index.frame(0), index.frame(0).agents[0])
    content = yaml.safe_load(path.read_text())
    content["lidar_pose"][0] += 500
    path.write_text(yaml.safe_dump(content))
    read = []
    monkeypatch.setattr("coopmap.data.pose_table.read_lidar_pose", lambda path: read.append(path) or np.full(6, 7.0))
    after = PoseTable.build(index, tmp_path / "cache").cords
    assert read == [path]
    assert (after[0] == 7).all()
    np.testing.assert_array_equal(after[1:], before[1:])


def test_the_same_names_with_other_poses_are_another_table(copied_town, tmp_path):
    index = SplitIndex.build(copied_town, "val")
    PoseTable.build(index, tmp_path / "cache")
    for frame in range(len(index)):
        for agent in index.frame(frame).agents:
            path = index.yaml_path(index.frame(frame), agent)
            text = path.read_text()
            content = yaml.safe_load(text)
            content["lidar_pose"][1] += 659
            path.write_text(yaml.safe_dump(content))
    kept = PoseTable.build(index, tmp_path / "cache").cords
    np.testing.assert_array_equal(kept, PoseTable.build(index).cords)


def test_an_unreadable_file_does_not_keep_the_others_from_being_kept(copied_town, tmp_path, monkeypatch):
    index = SplitIndex.build(copied_town, "val")
    path = index.yaml_path(index.frame(0), index.frame(0).agents[0])
    path.write_text("lidar_pose: [1, 2")
    first = PoseTable.build(index, tmp_path / "cache")
    monkeypatch.setattr("coopmap.data.pose_table._AT_ONCE", 1)  # a batch per file that is read
    again = PoseTable.build(index, tmp_path / "cache")
    assert first.skipped == again.skipped
    assert str(path) in again.skipped[0]
    np.testing.assert_array_equal(first.cords, again.cords)


def test_a_cache_folder_that_cannot_be_written_costs_a_warning(town, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    index = SplitIndex.build(town.root, "val")
    assert len(PoseTable.build(index, tmp_path / "cache").cords) == len(index.frame_agents)
    rig = read_agent(index.yaml_path(index.frame(0), index.frame(0).agents[0])).rig
    WarpCache(panorama_spec(PanoramaConfig(height=28, width=112)), tmp_path / "cache").get(rig)
    assert caplog.text.count("cannot be written") == 2


@pytest.mark.parametrize("kind", [*KINDS, "of another shape"])
def test_a_damaged_warp_is_computed_again(town, tmp_path, kind):
    index = SplitIndex.build(town.root, "val")
    rig = read_agent(index.yaml_path(index.frame(0), index.frame(0).agents[0])).rig
    spec = panorama_spec(PanoramaConfig(height=28, width=112))
    expected = WarpCache(spec, tmp_path).get(rig).warp
    (path,) = tmp_path.glob("warp_*.npz")
    if kind == "of another shape":
        np.savez(path, **{name: values[:3] for name, values in expected._asdict().items()})
    else:
        path.write_bytes(damaged(path.read_bytes())[kind])
    for values, right in zip(WarpCache(spec, tmp_path).get(rig).warp, expected, strict=True):
        np.testing.assert_array_equal(values, right)


def test_a_pipe_in_place_of_a_warp(town, tmp_path: Path):
    index = SplitIndex.build(town.root, "val")
    rig = read_agent(index.yaml_path(index.frame(0), index.frame(0).agents[0])).rig
    spec = panorama_spec(PanoramaConfig(height=28, width=112))
    WarpCache(spec, tmp_path).get(rig)
    (path,) = tmp_path.glob("warp_*.npz")
    path.unlink()
    os.mkfifo(path)
    WarpCache(spec, tmp_path).get(rig)
