"""A kept index is what a scan of the files gives, however the files changed."""

import errno
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from coopmap.data import kept_index as module
from coopmap.data.kept_index import ARRAYS, kept_index
from coopmap.data.opv2v import SplitIndex

BUILD = SplitIndex.build


@pytest.fixture
def scans(monkeypatch) -> list[str]:
    """Splits whose files were looked at."""
    splits = []
    monkeypatch.setattr(
        module.SplitIndex, "build", lambda root, split, *more: splits.append(split) or BUILD(root, split, *more)
    )
    return splits


LONG_AGO = (1e9, 1e9)


@pytest.fixture
def old_town(copied_town: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the town whose folders have not changed for a while."""
    monkeypatch.setattr(module, "SETTLED_S", 0.1)
    for folder in copied_town.rglob("*/"):
        os.utime(folder, LONG_AGO)
    time.sleep(0.2)  # nothing sets back the time of the folder itself
    return copied_town


def assert_scanned(index: SplitIndex, root: Path) -> None:
    expected = BUILD(root, "train")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(index, name), getattr(expected, name))


def test_an_index_is_scanned_once(old_town, tmp_path, scans):
    first, second = (kept_index(old_town, "train", cache_dir=tmp_path / "cache") for _ in range(2))
    assert scans == ["train"]
    assert second.root == first.root
    assert second.split == first.split
    assert_scanned(second, old_town)


def test_files_that_come_or_go_are_seen(old_town, tmp_path, scans):
    before = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    path = before.yaml_path(before.frame(0), before.frame(0).agents[0])
    path.rename(path.with_suffix(".away"))
    without = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert len(without.frame_agents) == len(before.frame_agents) - 1
    path.with_suffix(".away").rename(path)
    assert_scanned(kept_index(old_town, "train", cache_dir=tmp_path / "cache"), old_town)
    shutil.copytree(path.parent, path.parent.with_name("99999"))
    more = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert b"99999" in more.agents


def test_a_folder_that_is_still_changing_is_not_trusted(old_town, tmp_path, scans, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_S", 1000.0)
    for _ in range(2):
        kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert scans == ["train", "train"]
    assert not list((tmp_path / "cache").glob("index_*"))


def test_files_that_come_with_the_time_of_their_folder_set_back_are_seen(old_town, tmp_path):
    """As tar, unzip and rsync -a do it."""
    before = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").glob("index_*"))
    path = before.yaml_path(before.frame(0), before.frame(0).agents[0])
    shutil.copy(path, path.with_stem("999999"))
    os.utime(path.parent, LONG_AGO)
    after = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert len(after) == len(before) + 1
    assert_scanned(after, old_town)


@pytest.mark.parametrize("level", ["agent", "scenario", "split"])
def test_an_index_without_a_folder_that_could_not_be_listed_is_not_kept(old_town, tmp_path, monkeypatch, caplog, level):
    """Network storage fails for a moment, and no time changes when it recovers."""
    ref = BUILD(old_town, "train").frame(0)
    shutil.copytree(old_town / "train" / ref.scenario, old_town / "train" / "other")
    time.sleep(0.2)
    folder = old_town / "train" / ref.scenario / ref.agents[0]
    bad = {"agent": folder, "scenario": folder.parent, "split": folder.parent}[level]
    real = os.scandir

    class Unreachable:
        """An entry of a folder whose kind needs a look at it."""

        name, path = bad.name, str(bad)

        def is_dir(self):
            raise OSError(errno.ESTALE, "Stale file handle")

    @contextmanager
    def failing(path):
        if str(path) == str(bad) and level != "split":
            raise OSError(errno.EIO, "Input/output error")
        with real(path) as entries:
            yield [Unreachable() if level == "split" and entry.path == str(bad) else entry for entry in entries]

    built = []

    def build(*args):
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing)
            built.append(BUILD(*args))
        return built[-1]

    monkeypatch.setattr(module.SplitIndex, "build", build)
    first = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert "cannot be listed" in caplog.text
    assert first is built[0]
    assert not list((tmp_path / "cache").glob("index_*"))
    monkeypatch.setattr(module.SplitIndex, "build", BUILD)
    again = kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert len(again.frame_agents) > len(first.frame_agents)
    assert_scanned(again, old_town)
    assert list((tmp_path / "cache").glob("index_*"))


def test_a_folder_that_cannot_be_looked_at_is_left_out_and_nothing_is_kept(old_town, tmp_path, monkeypatch):
    ref = BUILD(old_town, "train").frame(0)
    hidden = str(old_town / "train" / ref.scenario / ref.agents[0])
    real = os.stat

    def stat(path, **more):
        if str(path) == hidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("index_*"))


def test_what_decides_the_index_has_a_file_of_its_own(old_town, tmp_path):
    cache = tmp_path / "cache"
    whole = kept_index(old_town, "train", cache_dir=cache)
    ref = whole.frame(0)
    entry = f"train/{ref.scenario}/{ref.agents[0]}/{ref.frame}"
    for _ in range(2):
        assert len(kept_index(old_town, "train", exclude={entry}, cache_dir=cache).frame_agents) == (
            len(whole.frame_agents) - 1
        )
        assert len(kept_index(old_town, "val", cache_dir=cache)) > 0
    assert_scanned(kept_index(old_town, "train", cache_dir=cache), old_town)


def test_entries_that_name_nothing_are_counted_whether_the_index_is_kept_or_not(old_town, tmp_path, caplog):
    ref = BUILD(old_town, "train").frame(0)
    car = f"train/{ref.scenario}/{ref.agents[0]}"
    entries = {f"train/none/1/{ref.frame}", f"{car}/{int(ref.frame)}", f"{car}/999999", f"validate/none/2/{ref.frame}"}
    for _ in range(2):
        caplog.clear()
        index = kept_index(old_town, "train", exclude={*entries, f"{car}/{ref.frame}"}, cache_dir=tmp_path / "cache")
        assert ref.agents[0] not in index.frame(0).agents
        (record,) = caplog.records
        said = f"2 of 4 entries of data.exclude for train name nothing in {old_town / 'train'}, the first: "
        assert record.getMessage().startswith(f"{said}none/1/{ref.frame};")
    caplog.clear()
    kept_index(old_town, "train", exclude={f"{car}/999999"}, cache_dir=tmp_path / "cache")
    assert not caplog.records


def test_a_damaged_file_is_made_anew(old_town, tmp_path, scans):
    kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("index_*")
    file.write_bytes(file.read_bytes()[:200])
    assert_scanned(kept_index(old_town, "train", cache_dir=tmp_path / "cache"), old_town)
    kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert scans == ["train", "train"]
