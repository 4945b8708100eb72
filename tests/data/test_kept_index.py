"""A kept index is what a scan of the files gives, however the files changed."""

import os
import shutil
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


@pytest.fixture
def old_town(copied_town: Path) -> Path:
    """A copy of the town whose folders have not changed for a while."""
    for folder in copied_town.rglob("*/"):
        os.utime(folder, (1e9, 1e9))
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


def test_a_folder_that_is_still_changing_is_not_trusted(old_town, tmp_path, scans):
    next((old_town / "train").glob("*/*/*.yaml")).parent.touch()
    for _ in range(2):
        kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert scans == ["train", "train"]
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


def test_a_damaged_file_is_made_anew(old_town, tmp_path, scans):
    kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("index_*")
    file.write_bytes(file.read_bytes()[:200])
    assert_scanned(kept_index(old_town, "train", cache_dir=tmp_path / "cache"), old_town)
    kept_index(old_town, "train", cache_dir=tmp_path / "cache")
    assert scans == ["train", "train"]
