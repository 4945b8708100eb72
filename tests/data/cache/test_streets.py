"""Streets that are rendered straight into a cache give the views that their files would have given."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
import torch

from coopmap.cli.main import main
from coopmap.config import load_config
from coopmap.config.cache import CacheConfig
from coopmap.config.checks import ConfigError
from coopmap.config.data import AugmentationConfig, DataConfig, DepthConfig
from coopmap.config.sampling import SamplingConfig
from coopmap.config.synth import ScenarioCounts, TownConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.cache import shards, streets
from coopmap.data.cache.command import fill_cache
from coopmap.data.cache.shards import claimed, plan
from coopmap.data.opv2v import SplitIndex
from coopmap.synthetic.dataset import FrameSenses

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
    assert not (unkept / "depth").exists()


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


@pytest.mark.parametrize(
    ("layout", "depth"),
    [
        ("cameras", {}),
        ("mosaic", {}),
        ("cameras", {"depth_root": None}),
        ("panorama", {"depth_root": None}),
        ("mosaic", {"depth_root": None, "depth": DepthConfig(merge_agents=True)}),
    ],
)
def test_samples_of_all_layouts_are_those_from_files(kept, tmp_path, layout, depth):
    """Images and depth equal; rays within 7e-6 rad as those of any cache. Panoramas with dense depth: see above."""
    config = config_in(tmp_path, layout=layout, max_views_per_gpu=12, **depth)
    town = replace(streets.streets_of(config), depth_root=config.depth_root, scenarios=ScenarioCounts(0, 1, 0))
    fill(tmp_path, keep_files=False, layout=layout, max_views_per_gpu=12, town=town, **depth)
    files = config_in(kept, layout=layout, max_views_per_gpu=12, **depth)
    cache = replace(files, root=config.root, depth_root=None, cache_root=str(tmp_path / "cache"))
    first, second = (split[SampleRequest(0, 2)] for split in (build_split(files, "val"), build_split(cache, "val")))
    assert torch.equal(first.observation.images, second.observation.images)
    assert torch.equal(first.target.depth, second.target.depth)
    assert torch.equal(first.target.valid, second.target.valid)
    assert first.target.valid.any()
    exact = "depth_root" in depth or layout == "cameras"
    assert (first.target.rays - second.target.rays).norm(dim=-1).max() <= (0 if exact else 7e-6)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".npy", ".pcd")]


def test_the_command_takes_views_from_the_configuration(tmp_path, capsys):
    """Training then needs the two folders and the same words."""
    root, cache = f"root={tmp_path / 'streets'}", f"cache_root={tmp_path / 'cache'}"
    views = ["preset=demo", "data.panorama.height=32", "data.panorama.width=128"]
    counts = ["scenarios.train=0", "scenarios.validate=1", "scenarios.test=0"]
    small = ["towns=per_scenario", "image_scale=0.125", "agents_min=2", "agents_max=2", "workers=1"]
    main(["synth", root, cache, *counts, *small, *views])
    assert f"train with data.{root} data.{cache}" in capsys.readouterr().out
    config = load_config([*views, f"data.{root}", f"data.{cache}", "data.min_agents=2"]).data
    assert config.depth_root is None
    (sample,) = [split[SampleRequest(0, 2)] for split in [build_split(config, "val")]]
    assert sample.observation.images.shape == (2, 3, 32, 128)
    assert sample.target.valid.float().mean() > 0.2  # dense depth, by default
    with pytest.raises(ConfigError, match=r"made with data.panorama.width=128, now it is data.panorama.width=136"):
        build_split(load_config([*views[:2], "data.panorama.width=136", f"data.{root}", f"data.{cache}"]).data, "val")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.layout=mosaic"], "data.layout=mosaic: says what views are like; expected cache_root=FOLDER"),
        (["cache_root=a"], "cache_root=a: expected towns=per_scenario beside it"),
        (["cache_root=a", "towns=per_scenario", "data.root=b"], "data.root=b: coopmap synth has keys of its own"),
        (["cache_root=a", "towns=per_scenario", "data.depth.kind=ray"], "data.depth.kind=ray: depth of streets is"),
        (["cache_root=a", "towns=per_scenario", "data.depth.source=png"], "data.depth.source=png: of streets there"),
    ],
)
def test_what_the_command_cannot_do_is_said(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["synth", *arguments])
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache_root": None}, "data.cache_root is not set; but data.root=.* metadata of streets alone"),
        ({"augmentation": AugmentationConfig(tilt_deg=2.0)}, "data.augmentation.tilt_deg warps every view anew"),
        ({"sampling": SamplingConfig(min_covisibility=0.1)}, "data.sampling asks for the co-visibility of pairs"),
        ({"layout": "mosaic"}, "made with data.layout=panorama"),
    ],
)
def test_images_that_were_never_written_are_not_looked_for(unkept, changes, words):
    config = config_in(unkept, **{"cache_root": str(unkept / "cache"), **changes})
    with pytest.raises(ConfigError, match=words):
        build_split(config, "train")


def test_views_that_are_not_rendered_yet_are_not_made_from_files(copied):
    config = config_in(copied, cache_root=str(copied / "cache"))
    next((copied / "cache" / "validate").rglob("000.json")).unlink()
    with pytest.raises(ConfigError, match="lacks 1 of 1 shards of val, which the command that began it will add"):
        build_split(config, "val")
    shutil.rmtree(copied / "cache" / "validate")
    with pytest.raises(ConfigError, match="has nothing of the split val"):
        build_split(config, "val")


def test_two_caches_share_the_metadata(copied, monkeypatch):
    config = config_in(copied)
    other = CacheConfig(cache_root=str(copied / "other"), splits=["val"], workers=1, keep_files=False)
    fill_cache(other, replace(config, layout="mosaic"))
    build_split(replace(config, cache_root=str(copied / "cache")), "val")  # not stale
    assert len(build_split(replace(config, layout="mosaic", cache_root=other.cache_root), "val")) == 1


def test_streets_with_other_dates_are_rendered_again(copied, unkept, monkeypatch):
    changed = next((copied / "streets" / "validate").rglob("000060.yaml"))
    os.utime(changed)
    config = config_in(copied, cache_root=str(copied / "cache"))
    with pytest.raises(ConfigError, match=f"{changed} differs. The command that filled it"):
        build_split(config, "val")
    rendered = spied(monkeypatch)
    fill(copied, keep_files=False)
    assert rendered == [("validate", 0)]
    assert len(build_split(config, "val")) == 1
    assert records(copied / "cache") == records(unkept / "cache")


def test_a_shard_that_was_deleted_is_rendered_again(copied, unkept, monkeypatch):
    next((copied / "cache" / "validate").rglob("000.lmdb")).unlink()
    rendered = spied(monkeypatch)
    fill(copied, keep_files=False)
    assert rendered == [("validate", 0)]
    assert records(copied / "cache") == records(unkept / "cache")


def test_what_another_process_renders_is_left_to_it(tmp_path):
    render = streets.StreetsToShards(tmp_path / "cache", config_in(tmp_path))
    (chunk,) = streets.chunks_of(town_of(tmp_path), "val")
    with claimed(chunk.shards[0], tmp_path / "cache"):
        assert render(chunk) is None
    assert not (tmp_path / "streets").exists()


def test_a_disk_that_will_be_full_is_said_early(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
    monkeypatch.setattr(streets.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    rendered = spied(monkeypatch)
    with pytest.raises(ConfigError, match=r"the 2 streets that are left need 0\.0 GB, 0\.0 GB are free"):
        fill(tmp_path, keep_files=False)
    assert rendered == [("train", 0)]


def test_what_unfinished_shards_hold_is_room(tmp_path, monkeypatch):
    """Several are written at a time, and a command that was killed leaves some."""
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
    monkeypatch.setattr(streets.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    for place in ("train/train_00001", "validate/validate_00000"):
        (tmp_path / "cache" / place).mkdir(parents=True)
        with (tmp_path / "cache" / place / "000.lmdb").open("wb") as file:
            file.truncate(100_000_000)
    assert "6 views in 3 shards" in fill(tmp_path, keep_files=False)


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


def test_asking_for_fewer_streets_keeps_what_there_is(copied, unkept, monkeypatch):
    rendered, fewer = (
        spied(monkeypatch),
        replace(town_of(copied), scenarios=ScenarioCounts(train=1, validate=0, test=0)),
    )
    assert "6 views in 2 shards" in fill(copied, keep_files=False, town=fewer)
    assert rendered == []
    assert records(copied / "cache") == records(unkept / "cache")
    assert len(build_split(config_in(copied, cache_root=str(copied / "cache")), "train")) == 2


def test_a_cache_of_fewer_streets_than_there_are_metadata_holds_all_of_them(copied, unkept):
    """Training finds all: it would call a cache of some stale."""
    shutil.rmtree(copied / "cache")
    fill(copied, keep_files=False, town=replace(town_of(copied), scenarios=ScenarioCounts(train=1, validate=0, test=0)))
    assert records(copied / "cache") == records(unkept / "cache")


def test_a_shard_of_more_streets_that_another_command_rendered_meanwhile_is_kept(copied):
    render = streets.StreetsToShards(copied / "cache", config_in(copied))
    assert render.is_done(streets.Chunk("train", (0,), 1))


def test_metadata_that_differ_by_rounding_stay(copied, monkeypatch):
    """As between types of CPU; what a person changed does not."""
    sources = {path: path.stat().st_mtime_ns for path in (copied / "streets").rglob("*.yaml")}
    numbers = re.compile(r"(\d\.\d{12})(\d+)")
    frame = streets.render_metadata

    def rounded(town: TownConfig, root: Path, scenario: tuple[str, int], with_sweeps: bool) -> Iterator[FrameSenses]:
        yield from frame(town, root, scenario, with_sweeps)
        for path in root.rglob("0*.yaml"):
            path.write_text(numbers.sub(r"\1", path.read_text()))

    monkeypatch.setattr(streets, "render_metadata", rounded)
    fill_cache(CacheConfig(cache_root=str(copied / "other"), workers=1, keep_files=False), config_in(copied))
    assert {path: path.stat().st_mtime_ns for path in sources} == sources
    for cache in ("cache", "other"):
        assert len(build_split(config_in(copied, cache_root=str(copied / cache)), "train")) == 2
    changed = next((copied / "streets" / "validate").rglob("000060.yaml"))
    changed.write_text(edited := changed.read_text().replace("ego_speed: ", "ego_speed: 1"))
    fill(copied, keep_files=False)
    assert changed.read_text() != edited


def test_a_long_drive_takes_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 2)
    town = tiny_streets(str(tmp_path / "streets"), None, scenarios=ScenarioCounts(1, 0, 0), agents_max=2, frames=3)
    config = config_in(tmp_path, town=town, depth_root=None)
    chunks = streets.chunks_of(town, "train")
    summary = fill_cache(CacheConfig(cache_root=str(tmp_path / "cache"), workers=1, keep_files=False), config)
    assert "views in 2 shards" in summary
    planned = plan(SplitIndex.build(town.root, "train"))
    assert [shard.path(tmp_path) for shard in planned] == [shard.path(tmp_path) for shard in chunks[0].shards]
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
    calls, render = list[tuple[str, int]](), streets.render_metadata

    def spy(town: TownConfig, root: Path, scenario: tuple[str, int], with_sweeps: bool) -> Iterator[FrameSenses]:
        calls.append(scenario)
        return render(town, root, scenario, with_sweeps)

    monkeypatch.setattr(streets, "render_metadata", spy)
    return calls
