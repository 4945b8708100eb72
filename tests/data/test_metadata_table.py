"""The table of metadata gives what the files say: whatever was kept before, and however it came to harm."""

import errno
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from coopmap.data import SampleRequest, build_split, from_files, metadata_table
from coopmap.data.metadata_table import MetadataTable
from coopmap.data.opv2v import AgentMetadata, CorruptFrameError, MissingFileError, SplitIndex, read_agent


@pytest.fixture
def parsed(monkeypatch) -> list[Path]:
    """Files that were parsed."""
    files = []

    def read(path: Path, with_vehicles: bool) -> AgentMetadata:
        files.append(path)
        return read_agent(path, with_vehicles)

    monkeypatch.setattr(metadata_table, "read_agent", read)
    return files


def paths_of(index: SplitIndex) -> list[Path]:
    return [index.yaml_path(ref, agent) for ref in map(index.frame, range(len(index))) for agent in ref.agents]


def assert_same(a: AgentMetadata, b: AgentMetadata) -> None:
    for name in ("path", "speed", "is_rsu"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("pose", "pose_prior"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("intrinsics", "agent_from_camera", "image_size", "ground_height_m"):
        np.testing.assert_array_equal(getattr(a.rig, name), getattr(b.rig, name))


def test_each_file_is_parsed_once_and_for_all_processes(town, tmp_path, parsed):
    index = SplitIndex.build(town.root, "train")
    paths = paths_of(index)
    for _ in range(2):
        table = MetadataTable(index, tmp_path)
        for row, path in enumerate(paths):
            assert_same(table.read(row, path), read_agent(path, with_vehicles=False))
            assert_same(table.read(row, path), read_agent(path, with_vehicles=False))
    assert parsed == paths


def test_a_changed_file_is_parsed_again(copied_town, tmp_path, parsed):
    index = SplitIndex.build(copied_town, "train")
    table, path = MetadataTable(index, tmp_path), paths_of(index)[0]
    before = table.read(0, path)
    text = path.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ego_speed:")]
    path.write_text(text.replace(line, "ego_speed: 36.0"))
    os.utime(path, ns=(0, 0))
    assert before.speed != 10
    assert table.read(0, path).speed == pytest.approx(10)
    assert len(parsed) == 2


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_replaced_image_is_noticed(copied_town, tmp_path, parsed, changed):
    """The image says how large images are: a table must not keep saying what the former one said."""
    index = SplitIndex.build(copied_town, "train")
    path = paths_of(index)[0]
    image = path.with_name(f"{path.stem}_camera0.png")
    pixels = cv2.imread(str(image))
    height, width = MetadataTable(index, tmp_path / "cache").read(0, path).rig.image_size
    if changed == "size":  # cropped by a row and a column: the principal point is still near the center
        cv2.imwrite(str(image), pixels[:-1, :-1])
    else:
        os.utime(image, ns=(0, 0))
    again = MetadataTable(index, tmp_path / "cache").read(0, path).rig.image_size
    assert again == ((height - 1, width - 1) if changed == "size" else (height, width))
    assert len(parsed) == 2
    MetadataTable(index, tmp_path / "cache").read(0, path)
    assert len(parsed) == 2
    image.unlink()
    assert MetadataTable(index, tmp_path / "cache").read(0, path).rig.image_size == (height, width)


def test_a_table_that_cannot_be_written_costs_one_line(town, tmp_path, caplog, parsed):
    (tmp_path / "file").touch()
    index = SplitIndex.build(town.root, "train")
    table = MetadataTable(index, tmp_path / "file" / "cache")
    for _ in range(2):
        for row, path in enumerate(paths_of(index)):
            assert_same(table.read(row, path), read_agent(path, with_vehicles=False))
    assert caplog.text.count("metadata are parsed for each sample") == 1
    assert len(parsed) == 2 * len(paths_of(index))


def test_a_full_disk_is_noticed_before_anything_is_written(town, tmp_path, caplog, monkeypatch):
    """A page that the disk has no room for would end the process by SIGBUS."""

    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space, raising=False)
    index = SplitIndex.build(town.root, "train")
    path = paths_of(index)[0]
    assert_same(MetadataTable(index, tmp_path).read(0, path), read_agent(path, with_vehicles=False))
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("offset", [0, 4, 8, 48, 600, metadata_table.ROW.itemsize - 1])
def test_a_damaged_row_is_parsed_again(town, tmp_path, parsed, offset):
    index = SplitIndex.build(town.root, "train")
    table, path = MetadataTable(index, tmp_path), paths_of(index)[1]
    expected = table.read(1, path)
    data = bytearray(table.path.read_bytes())
    data[metadata_table.ROW.itemsize + offset] ^= 16
    table.path.write_bytes(data)
    again = MetadataTable(index, tmp_path)
    assert_same(again.read(1, path), expected)
    assert_same(again.read(1, path), expected)
    assert len(parsed) == 2


def test_a_truncated_table_is_made_anew(town, tmp_path):
    index = SplitIndex.build(town.root, "train")
    table, path = MetadataTable(index, tmp_path), paths_of(index)[0]
    expected = table.read(0, path)
    table.path.write_bytes(table.path.read_bytes()[:100])
    assert_same(MetadataTable(index, tmp_path).read(0, path), expected)


def test_unreadable_files_are_reported_each_time(copied_town, tmp_path):
    index = SplitIndex.build(copied_town, "train")
    table, (first, second, *_) = MetadataTable(index, tmp_path), paths_of(index)
    first.write_text("camera0:\n  cords: [1, 2")
    second.unlink()
    for _ in range(2):
        with pytest.raises(CorruptFrameError, match=str(first)):
            table.read(0, first)
        with pytest.raises(MissingFileError, match=str(second)):
            table.read(1, second)


def test_a_file_that_the_system_does_not_describe_costs_its_frame(copied_town, tmp_path):
    """A link in a circle, a folder that may not be entered, storage that fails: no run may end by them."""
    index = SplitIndex.build(copied_town, "train")
    path = paths_of(index)[0]
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(CorruptFrameError, match="leads back to itself"):
        MetadataTable(index, tmp_path).read(0, path)


def test_storage_that_fails_for_a_moment_costs_nothing(town, tmp_path, monkeypatch):
    index = SplitIndex.build(town.root, "train")
    path, stat = paths_of(index)[0], Path.stat

    def fails(self: Path, **options: bool) -> os.stat_result:
        if self == path:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", fails)
    assert_same(MetadataTable(index, tmp_path).read(0, path), read_agent(path, with_vehicles=False))


def _fill(table: MetadataTable, paths: list[Path]) -> None:
    for _ in range(20):
        for row, path in enumerate(paths):
            assert_same(table.read(row, path), read_agent(path, with_vehicles=False))


def test_several_processes_fill_one_table(town, tmp_path):
    index = SplitIndex.build(town.root, "train")
    table, paths = MetadataTable(index, tmp_path), paths_of(index)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(table, paths)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_training_from_files_parses_each_file_once(config_of, tmp_path, parsed, monkeypatch):
    """Also a dataset that is opened anew; only masks of vehicles need the files themselves."""
    others = []
    monkeypatch.setattr(from_files, "read_agent", lambda path, with_vehicles: others.append(path))
    config = config_of(cache_dir=str(tmp_path / "cache"))
    for _ in range(2):
        dataset = build_split(config, "train")
        request = SampleRequest(int(dataset.frames[0]), 2, seed=3)
        first, second = dataset[request], dataset[request]
        assert first.meta == second.meta
        assert len(parsed) == len(set(parsed)) == 2
    assert others == []
