"""What is kept for later runs is made anew when it is damaged or stale, and never ends a run."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from coopmap.config.data import PanoramaConfig
from coopmap.config.sampling import SamplingConfig
from coopmap.data import SampleRequest, covisibility
from coopmap.data.datamodule import build_split
from coopmap.data.opv2v import SplitIndex, read_agent, select_depth_source
from coopmap.data.pose_table import PoseTable
from coopmap.data.turns import first_come
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


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """One entry for each frame whose co-visibility is measured."""
    frames: list[int] = []
    get = covisibility._Frames.__getitem__
    monkeypatch.setattr(
        covisibility._Frames, "__getitem__", lambda self, frame: frames.append(frame) or get(self, frame)
    )
    return frames


def shares_of(index: SplitIndex, cache: Path) -> np.ndarray:
    poses = PoseTable.build(index, cache)
    return covisibility.split_covisibility(index, poses, select_depth_source(index), 70.0, cache)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_covisibility_is_measured_again(town, tmp_path, kind, measured):
    index = SplitIndex.build(town.root, "val")
    expected = shares_of(index, tmp_path)
    (path,) = tmp_path.glob("covisibility_*.npz")
    path.write_bytes(damaged(path.read_bytes())[kind])
    for _ in range(2):
        np.testing.assert_array_equal(shares_of(index, tmp_path), expected)
        # bytes before the archive, and a header that says again what its directory says, do no harm
        assert len(measured) == (1 if kind in ("header", "other") else 2) * len(index)


def test_covisibility_is_measured_again_when_poses_change(copied_town, tmp_path, measured):
    index = SplitIndex.build(copied_town, "val")
    before = shares_of(index, tmp_path / "cache")
    path = index.yaml_path(index.frame(0), index.frame(0).agents[0])
    content = yaml.safe_load(path.read_text())
    content["lidar_pose"][0] += 500
    path.write_text(yaml.safe_dump(content))
    after = shares_of(index, tmp_path / "cache")
    assert len(measured) == 2 * len(index)
    assert np.isnan(after).sum() > np.isnan(before).sum()


def test_covisibility_of_frames_that_could_not_be_read_is_measured_again(copied_town, tmp_path, measured, caplog):
    index = SplitIndex.build(copied_town, "val")
    expected = shares_of(index, tmp_path / "elsewhere")
    sweep = index.lidar_path(index.frame(0), index.frame(0).agents[0])
    whole, status = sweep.read_bytes(), sweep.stat()
    sweep.write_bytes(whole[:3000])
    os.utime(sweep, ns=(status.st_mtime_ns, status.st_mtime_ns))
    measured.clear()
    for _ in range(2):
        assert np.isnan(shares_of(index, tmp_path / "cache")).sum() > np.isnan(expected).sum()
    assert measured == [*range(len(index)), 0]
    assert caplog.text.count(f"co-visibility of 1 of {len(index)} frames is unknown") == 2
    sweep.write_bytes(whole)
    for _ in range(2):
        np.testing.assert_array_equal(shares_of(index, tmp_path / "cache"), expected)
    assert measured == [*range(len(index)), 0, 0]


@pytest.mark.parametrize("suffix", [".pcd", ".yaml"])
def test_covisibility_of_a_frame_whose_files_change_is_measured_again(copied_town, tmp_path, measured, suffix):
    index = SplitIndex.build(copied_town, "val")
    shares_of(index, tmp_path / "cache")
    last = len(index) - 1
    path = index.yaml_path(index.frame(last), index.frame(last).agents[0])
    os.utime(path.with_suffix(suffix), ns=(1, 1))
    measured.clear()
    for _ in range(2):
        shares_of(index, tmp_path / "cache")
    assert measured == [last]


@pytest.mark.parametrize("pattern", ["poses_*.npy", "covisibility_*.npz"])
def test_what_another_process_is_about_to_keep_is_waited_for(town, tmp_path, measured, monkeypatch, pattern):
    """As the ranks of a run do, which start together."""
    index = SplitIndex.build(town.root, "val")
    expected = shares_of(index, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(pattern)
    content = path.read_bytes()
    path.unlink()
    read: list[Path] = []
    monkeypatch.setattr("coopmap.data.pose_table.read_lidar_pose", lambda path: read.append(path) or np.full(6, 7.0))
    measured.clear()
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()

    def make() -> None:
        with first_come(path):
            begun.set()
            time.sleep(0.5)
            path.write_bytes(content)

    other = fork.Process(target=make)
    other.start()
    assert begun.wait(60)
    np.testing.assert_array_equal(shares_of(index, tmp_path / "cache"), expected)
    other.join()
    assert (measured, read) == ([], [])
    assert not list((tmp_path / "cache").glob("*.lock"))


def test_training_goes_on_without_caches_that_cannot_be_written(config_of, tmp_path, caplog, monkeypatch):
    """Whatever is in the way of each file by itself, the samples are the same, and each is said once."""
    sampling = SamplingConfig(min_covisibility=0.001)
    request = SampleRequest(0, 2, seed=3)
    expected = build_split(config_of(sampling=sampling), "train")[request]
    cache = tmp_path / "cache"
    cache.mkdir()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    dataset = build_split(config_of(sampling=sampling, cache_dir=str(cache)), "train")
    for _ in range(2):
        sample = dataset[request]
    assert torch.equal(sample.observation.images, expected.observation.images)
    assert torch.equal(sample.target.pose, expected.target.pose)
    assert list(cache.iterdir()) == []
    for name in ("poses_train_", "metadata_train_", "covisibility_train_"):
        assert len([text for text in caplog.messages if name in text and "cannot be written (Read-only" in text]) == 1


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
