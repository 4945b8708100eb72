"""Streets that are rendered straight into a cache give the views that their files would have given."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest
import torch

from coopmap.config.cache import CacheConfig
from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.synth import ScenarioCounts, TownConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.cache import shards, streets
from coopmap.data.cache.command import fill_cache
from coopmap.data.cache.shards import plan
from coopmap.data.opv2v import SplitIndex

from ...worlds import tiny_streets

COUNTS = ScenarioCounts(train=2, validate=1, test=0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with rendered streets, and a cache of them."""
    folder = tmp_path_factory.mktemp("kept")
    assert "views in 2 shards" in fill(folder, keep_files=True)
    return folder


@pytest.fixture(scope="module")
def unkept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without files."""
    folder = tmp_path_factory.mktemp("unkept")
    assert "views in 2 shards" in fill(folder, keep_files=False)
    return folder


@pytest.fixture
def copied(unkept: Path, tmp_path: Path) -> Path:
    """A private copy, with the times of files."""
    return Path(shutil.copytree(unkept, tmp_path / "copy"))


def config_in(folder: Path, **changes) -> DataConfig:
    town = tiny_streets(str(folder / "streets"), str(folder / "depth"), scenarios=COUNTS, agents_min=2, agents_max=2)
    values = {"root": town.root, "depth_root": town.depth_root, "town": town, "num_workers": 0, "min_agents": 2}
    return DataConfig(**(values | changes))


def fill(folder: Path, keep_files: bool, **changes) -> str:
    asked = CacheConfig(cache_root=str(folder / "cache"), workers=1, keep_files=keep_files)
    return fill_cache(asked, config_in(folder, **changes))


def records(cache: Path) -> dict[str, bytes]:
    """All of a cache, from copies: LMDB opens no file twice in a process."""
    found = {}
    for path in cache.rglob("*.lmdb"):
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfile(path, copy.name)
            with lmdb.open(copy.name, subdir=False, readonly=True, lock=False) as file, file.begin() as transaction:
                found |= dict(transaction.cursor())
    return found


def test_records_are_those_from_files(kept, unkept):
    from_files, direct = records(kept / "cache"), records(unkept / "cache")
    assert len(direct) == 6
    assert direct == from_files


def test_of_the_files_the_metadata_stays_as_it_is(kept, unkept):
    def files(root: Path) -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    whole, left = files(kept / "streets"), files(unkept / "streets")
    assert {name for name in whole if name.endswith(".yaml")} == set(left)
    assert all(content == whole[name] for name, content in left.items() if name != "town.yaml")
    assert set(files(unkept / "depth")) == {"town.yaml"}


@pytest.mark.parametrize("with_town", [True, False])
def test_samples_come_from_the_cache(kept, unkept, with_town):
    changes = {} if with_town else {"town": None}
    files = build_split(config_in(kept), "val")
    cache = build_split(config_in(unkept, cache_root=str(unkept / "cache"), **changes), "val", probe=True)
    first, second = (split[SampleRequest(int(split.frames[0]), 2)] for split in (files, cache))
    assert second.skipped == ()
    assert torch.equal(first.observation.images, second.observation.images)
    assert torch.equal(first.target.pose, second.target.pose)
    assert torch.equal(first.target.valid, second.target.valid)


def test_what_is_missing_is_rendered_again(copied, unkept, monkeypatch):
    shutil.rmtree(copied / "streets" / "train" / "train_00001")
    (copied / "streets" / ".partial-killed").mkdir()
    rendered = spied(monkeypatch)
    fill(copied, keep_files=False)
    assert rendered == [("train", 0), ("train", 1)]  # one shard
    assert records(copied / "cache") == records(unkept / "cache")
    build_split(config_in(copied, cache_root=str(copied / "cache")), "train")  # and is not called stale
    fill(copied, keep_files=False)
    assert len(rendered) == 2


def test_more_streets_are_added(copied, unkept, monkeypatch):
    rendered, config = spied(monkeypatch), config_in(copied)
    assert config.town is not None
    more = replace(config.town, scenarios=ScenarioCounts(train=2, validate=2, test=0))
    fill(copied, keep_files=False, town=more)
    assert rendered == [("validate", 0), ("validate", 1)]
    assert records(unkept / "cache").items() < records(copied / "cache").items()


def test_a_long_drive_takes_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 2)
    town = tiny_streets(str(tmp_path / "streets"), None, scenarios=ScenarioCounts(1, 0, 0), agents_max=2, frames=3)
    config = config_in(tmp_path, town=town, depth_root=None)
    chunks = streets.chunks_of(town, "train")
    summary = fill_cache(CacheConfig(cache_root=str(tmp_path / "cache"), workers=1, keep_files=False), config)
    assert "views in 2 shards" in summary
    planned = plan(SplitIndex.build(town.root, "train"))
    assert [shard.path(tmp_path) for shard in planned] == [chunks[0].shard(part).path(tmp_path) for part in (0, 1)]
    assert len(build_split(replace(config, cache_root=str(tmp_path / "cache")), "train")) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"town": None}, "add data=streets"), ({"exclude": "list.txt"}, "data.exclude=list.txt")],
)
def test_what_cannot_be_is_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        fill(tmp_path, keep_files=False, **changes)
    assert list(tmp_path.iterdir()) == []


def test_folders_with_files_and_without_are_not_mixed(kept, unkept):
    with pytest.raises(ConfigError, match="keep_files"):
        fill(kept, keep_files=False)
    assert list((kept / "streets").rglob("*.png"))
    with pytest.raises(ConfigError, match="keep_files"):
        fill(unkept, keep_files=True, town=replace(town_of(unkept), scenarios=ScenarioCounts(3, 1, 0)))


def town_of(folder: Path) -> TownConfig:
    town = config_in(folder).town
    assert town is not None
    return town


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Scenarios that are rendered from now on."""
    calls, render = list[tuple[str, int]](), streets.render_scenario

    def spy(town: TownConfig, root: Path, depth_root: Path | None, scenario: tuple[str, int]) -> int:
        calls.append(scenario)
        return render(town, root, depth_root, scenario)

    monkeypatch.setattr(streets, "render_scenario", spy)
    return calls
