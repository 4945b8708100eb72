"""A cache gives the samples that files give; what is stale, damaged or missing is found."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from coopmap.cli.main import main
from coopmap.config.cache import CacheConfig
from coopmap.config.checks import ConfigError
from coopmap.config.data import LAYOUTS, AugmentationConfig, DataConfig, DepthConfig, MosaicConfig
from coopmap.data import OPV2VDataModule, SampleRequest, build_split
from coopmap.data.cache import shards, writing
from coopmap.data.cache.command import fill_cache
from coopmap.data.cache.shards import plan
from coopmap.data.opv2v import CorruptFrameError, DatasetLayoutError
from coopmap.data.vehicles import VehiclePixels
from coopmap.types import Sample

ConfigOf = Callable[..., DataConfig]

NO_EXPOSURE = AugmentationConfig(exposure=0.0)


@pytest.fixture
def cached(config_of: ConfigOf, tmp_path: Path) -> Callable[..., tuple[DataConfig, DataConfig]]:
    """A configuration without and with a cache, which is filled."""

    def make(**changes) -> tuple[DataConfig, DataConfig]:
        root = str(tmp_path / "cache")
        config = config_of(**changes)
        fill_cache(CacheConfig(cache_root=root, workers=1), config)
        return config, config_of(**changes, cache_root=root)

    return make


def test_a_file_is_no_cache(config_of: ConfigOf, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"^data\.cache_root=.*/file: cannot be read \(Not a directory\); expected a f"
    ):
        build_split(config_of(cache_root=str(tmp_path / "file")), "train")


def pairs(configs: tuple[DataConfig, DataConfig], split: str):
    """Samples from files and from the cache, with the same seeds; reading files is forbidden to the latter."""
    files, cache = (build_split(config, split) for config in configs)
    cache.ready.files.read = None
    for number, frame in enumerate(files.frames):
        request = SampleRequest(int(frame), 2, number if split == "train" else None)
        yield files[request], cache[request]


def assert_same_but(first: object, second: object, *different: str) -> None:
    """All tensors of two records are the same, bit for bit, but for the named."""
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, torch.Tensor) and name not in different:
            assert torch.equal(value, other), name
        elif not isinstance(value, torch.Tensor):
            assert value == other, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", ["dense", "lidar"])
def test_without_augmentation_samples_are_those_from_files(cached, layout, depth):
    """Rays within 7e-6 rad, which is 0.35 mm at 50 m; all else is equal."""
    changes, marked = {} if depth == "dense" else {"depth_root": None}, 0
    for first, second in pairs(cached(layout=layout, max_views_per_gpu=12, **changes), "val"):
        assert first.meta == second.meta
        assert_same_but(first.observation, second.observation)
        assert_same_but(first.target, second.target, "rays")
        exact = depth == "lidar" or layout == "cameras"
        assert (first.target.rays - second.target.rays).norm(dim=-1).max() <= (0 if exact else 7e-6)
        marked += first.target.moving.sum() + first.target.own_body.sum()
    assert marked > 0


@pytest.mark.parametrize("geometry", ["content", "central"])
@pytest.mark.parametrize("depth", ["dense", "lidar"])
def test_roll_and_jitter_come_on_top(cached, geometry, depth):
    changes = {} if depth == "dense" else {"depth_root": None}
    configs = cached(panorama={"geometry": geometry}, augmentation=NO_EXPOSURE, **changes)
    for first, second in pairs(configs, "train"):
        assert_same_but(first.observation, second.observation)
        assert torch.equal(first.target.valid, second.target.valid)
        assert torch.equal(first.target.pose, second.target.pose)
        assert (first.target.rays - second.target.rays).norm(dim=-1).max() < 7e-6
        assert ((first.target.depth - second.target.depth).abs() <= 1e-6 * first.target.depth).all()
        points = [sample.target.rays * sample.target.depth[..., None] for sample in (first, second)]
        assert ((points[0] - points[1]).norm(dim=-1) <= 0.4e-3 / 50 * first.target.depth).all()


def test_densified_points_come_from_the_cache_too(cached):
    configs = cached(panorama={"densify_px": 2}, depth_root=None, augmentation=NO_EXPOSURE)
    for split in ("train", "val"):
        for first, second in pairs(configs, split):
            assert_same_but(first.observation, second.observation)
            assert_same_but(first.target, second.target)


@pytest.mark.parametrize("layout", ["grouped", "cameras"])
def test_exposure_per_camera_is_exact_where_cameras_are_apart(cached, layout):
    for first, second in pairs(cached(layout=layout, max_views_per_gpu=12), "train"):
        assert_same_but(first.observation, second.observation)


def test_exposure_per_camera_through_the_winners_of_the_panorama(cached):
    """Gains after interpolation instead of before: a level of rounding, more where a bright edge is cut off."""
    augmentation = AugmentationConfig(
        brightness=0, contrast=0, saturation=0, hue_deg=0, exposure=0.15, grayscale_prob=0, blur_prob=0
    )
    differ = []
    for first, second in pairs(cached(augmentation=augmentation), "train"):
        images = first.observation.images.float(), second.observation.images.float()
        differ.append((images[0] - images[1]).abs())
        unlike = (images[0] - torch.roll(images[1], 20, dims=-1)).abs().mean()
        assert differ[-1].mean() < 0.05 * unlike
    levels = torch.cat([difference.flatten() for difference in differ])
    assert levels.mean() < 0.3
    assert (levels > 2).float().mean() < 0.01


@pytest.mark.parametrize("depth", ["dense", "lidar"])
def test_a_mosaic_is_turned_tilted_and_exposed_on_top(cached, depth):
    """Images are bytes from before; directions and points are turned."""
    changes = {} if depth == "dense" else {"depth_root": None}
    tilted = AugmentationConfig(tilt_deg=3.0)
    configs = cached(layout="mosaic", mosaic=MosaicConfig(84, 112), augmentation=tilted, **changes)
    for first, second in pairs(configs, "train"):
        assert_same_but(first.observation, second.observation)
        assert_same_but(first.target, second.target, "rays", "depth")
        assert (first.target.rays - second.target.rays).norm(dim=-1).max() < 7e-6
        assert ((first.target.depth - second.target.depth).abs() <= 1e-6 * first.target.depth).all()


@pytest.mark.parametrize("depth", ["dense", "lidar"])
def test_targets_of_single_cameras_are_those_from_files_in_training_too(cached, depth):
    """Bit for bit: no augmentation moves them."""
    changes, augmentation = {} if depth == "dense" else {"depth_root": None}, AugmentationConfig(tilt_deg=3.0)
    configs = cached(layout="cameras", max_views_per_gpu=12, vehicle_masks=True, augmentation=augmentation, **changes)
    marked = 0
    for first, second in pairs(configs, "train"):
        assert_same_but(first.target, second.target)
        assert first.target.valid.any(dim=-1).any(dim=-1).all()
        marked += first.target.moving.sum() + first.target.own_body.sum()
    assert marked > 0


@pytest.mark.parametrize("layout", ["panorama", "cameras", "mosaic"])
def test_vehicles_are_marked_in_training_too(cached, layout):
    """As from files, but for single pixels at the edges of boxes, which see another rounding when they are turned."""
    marked = 0
    for first, second in pairs(cached(layout=layout, max_views_per_gpu=12, vehicle_masks=True), "train"):
        for mask in ("moving", "own_body"):
            expected, found = getattr(first.target, mask), getattr(second.target, mask)
            assert (expected != found).float().mean() < 1e-5
            marked += expected.sum()
    assert marked > 100


@pytest.mark.parametrize("is_older", [False, True])
def test_a_file_that_lists_no_vehicles_costs_the_samples_of_its_agent_their_masks(
    cached, copied_town, monkeypatch, is_older
):
    """Older caches hold pixels of vehicles for none of the agents of such a frame."""
    ref = build_split(DataConfig(root=str(copied_town), depth_root=None), "val").index.frame(0)
    silent = copied_town / "validate" / ref.scenario / ref.agents[0] / f"{ref.frame}.yaml"
    content = yaml.safe_load(silent.read_text())
    del content["vehicles"]
    silent.write_text(yaml.safe_dump(content))
    if is_older:
        monkeypatch.setattr(writing, "vehicles_around", lambda _: None)
    files, cache = (build_split(config, "val") for config in cached(root=str(copied_town), depth_root=None))
    cache.ready.files.read = None
    assert len(ref.agents) >= 3
    for rows in ([0, 1], [1, 2]):
        first, second = (dataset.evaluation_sample(0, np.array(rows)) for dataset in (files, cache))
        assert (first.target.own_body is None) == (0 in rows)
        if is_older:
            assert second.target.moving is None
            assert second.target.own_body is None
        else:
            assert_same_but(first.target, second.target)


def test_only_vehicles_that_an_agent_of_the_sample_lists_are_marked():
    """The cache knows those of all agents of the frame."""
    at, count, body_at = (np.array(values, np.int32) for values in ([0, 1, 1, 2, 5], [2, 2, 1], [4]))
    pixels = VehiclePixels(at, count, np.array([7, 8, 641]), body_at)
    moving, own = pixels.masks("641", np.array([8, 641, 9]), (2, 3))
    assert np.flatnonzero(moving).tolist() == [1, 2]
    assert np.flatnonzero(own).tolist() == [5]
    moving, own = pixels.masks("641", np.array([7]), (2, 3))
    assert np.flatnonzero(moving).tolist() == [0, 1]
    assert np.flatnonzero(own).tolist() == [4]


def test_tilt_is_rendered_from_files(cached, config_of, caplog):
    _, config = cached()
    tilted = AugmentationConfig(tilt_deg=3.0)
    with_cache = build_split(config_of(cache_root=config.cache_root, augmentation=tilted), "train")
    plain = build_split(config_of(augmentation=tilted), "train")
    assert "tilt_deg" in caplog.text
    request = SampleRequest(int(plain.frames[0]), 2, 3)
    assert_same_but(plain[request].target, with_cache[request].target)


def test_loader_processes_read_the_cache(cached, config_of):
    _, config = cached()
    config.num_workers = 2
    build_split(config, "val")[0]  # opened in this process first: its children open anew
    batches = list(OPV2VDataModule(config).val_dataloader())
    expected = list(OPV2VDataModule(config_of()).val_dataloader())
    assert len(batches) == len(expected) > 0
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.observation.images, other.observation.images)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"panorama": {"radius_m": 20.0}}, "data.panorama.radius_m=30.0"),
        ({"panorama": {"geometry": "central"}}, "data.panorama.geometry=content"),
        ({"panorama": {"densify_px": 1}}, "data.panorama.densify_px=0"),
        ({"layout": "cameras"}, "data.layout=panorama"),
        ({"layout": "mosaic"}, "data.layout=panorama"),
        ({"depth": DepthConfig(max_m=100.0)}, "data.depth.max_m=200.0"),
        ({"depth_root": None}, "data.depth.source=DenseDepth"),
    ],
)
def test_a_cache_made_with_other_settings_is_refused(cached, config_of, changes, key):
    _, config = cached()
    other = config_of(**changes, cache_root=config.cache_root)
    with pytest.raises(ConfigError, match=key):
        build_split(other, "val")
    with pytest.raises(ConfigError, match=key):
        fill_cache(CacheConfig(cache_root=config.cache_root, workers=1), other)


def test_a_cache_of_another_kind_of_depth_is_refused_and_a_wrong_kind_makes_none(cached, config_of):
    _, config = cached()
    wrong = config_of(depth=DepthConfig(kind="ray"), cache_root=config.cache_root)
    with pytest.raises(ConfigError, match=r"data\.depth\.kind=z"):
        build_split(wrong, "val")
    with pytest.raises(DatasetLayoutError, match=r"depth along the optical axis \(z\)"):
        fill_cache(CacheConfig(cache_root=config.cache_root, workers=1), wrong)


def test_a_mosaic_of_another_size_is_refused_and_the_size_of_panoramas_is_nothing_to_it(cached, config_of):
    _, config = cached(layout="mosaic", mosaic=MosaicConfig(84, 112))
    same = {"layout": "mosaic", "cache_root": config.cache_root}
    with pytest.raises(ConfigError, match=r"data\.mosaic\.height=84"):
        build_split(config_of(**same, mosaic=MosaicConfig(42, 112)), "val")
    build_split(config_of({"height": 28}, **same, mosaic=MosaicConfig(84, 112)), "val")


def test_frames_that_are_excluded_must_be_so_for_the_cache_too(cached, config_of, tmp_path):
    config, with_cache = cached()
    index = build_split(config, "val").index
    ref = index.frame(0)
    entry = Path(*index.yaml_path(ref, ref.agents[0]).with_suffix("").parts[-4:])
    exclude = tmp_path / "bad.txt"
    exclude.write_text(f"{entry}\n")
    with pytest.raises(ConfigError, match=f"other frames or agents of val/{ref.scenario}: expected data.exclude"):
        build_split(config_of(cache_root=with_cache.cache_root, exclude=str(exclude)), "val")


def test_what_does_not_decide_the_content_may_differ(cached, config_of):
    _, config = cached()
    free = {"augmentation": NO_EXPOSURE, "max_agents": 2, "communication_range_m": 60.0, "vehicle_masks": True}
    assert len(build_split(config_of(**free, cache_root=config.cache_root), "train")) > 0


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_changed_image_is_named_and_its_shard_written_anew(cached, copied_town, suffix):
    if suffix == ".jpg":
        for path in copied_town.rglob("*_camera?.png"):
            cv2.imwrite(str(path.with_suffix(suffix)), cv2.imread(str(path)))
            path.unlink()
    config, with_cache = cached(root=str(copied_town))
    index = build_split(with_cache, "val").index
    ref = index.frame(0)
    image = index.image_path(ref, ref.agents[0], 0).with_suffix(suffix)
    shutil.copy(index.image_path(ref, ref.agents[0], 1).with_suffix(suffix), image)
    os.utime(image, ns=(1, 1))
    with pytest.raises(ConfigError, match=rf"{image.name} differs"):
        build_split(with_cache, "val")
    fill_cache(CacheConfig(cache_root=with_cache.cache_root, workers=1), config)
    for first, second in pairs((config, with_cache), "val"):
        assert_same_but(first.observation, second.observation)


def test_a_damaged_shard_is_named(cached):
    _, config = cached()
    shard = next(Path(config.cache_root).glob("validate/*/*.lmdb"))
    whole = shard.read_bytes()
    middle = len(whole) // 2
    shard.write_bytes(
        whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40_000]) + whole[middle + 40_000 :]
    )
    dataset = build_split(config, "val")
    messages = [text for i in range(len(dataset)) for text in dataset[i].skipped]
    assert messages
    assert all(str(shard) in text for text in messages)
    shard.write_bytes(whole[:middle])
    with pytest.raises(CorruptFrameError, match=str(shard)):
        build_split(config, "val")
    fill_cache(CacheConfig(cache_root=config.cache_root, workers=1), config)
    dataset = build_split(config, "val")
    assert all(dataset[i].skipped == () for i in range(len(dataset)))


def test_a_damaged_shard_costs_another_draw_in_training(cached, monkeypatch):
    """The file is no agent's: no choice of agents helps, but another frame does."""
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
    _, config = cached()
    dataset = build_split(config, "train")
    frame = int(dataset.frames[0])
    ref, (shard, _) = dataset.index.frame(frame), dataset.ready._place[frame]
    shard.write_bytes(shard.read_bytes()[:-1])
    for seed in range(3):
        sample = dataset[SampleRequest(frame, 2, seed)]
        assert isinstance(sample, Sample)
        assert sample.meta.frame != ref.frame
        assert str(shard) in sample.skipped[0]


def test_views_that_are_not_cached_are_made_from_files(cached, config_of, caplog):
    _, with_cache = cached()
    next(Path(with_cache.cache_root).glob("train/*/*.json")).unlink()
    assert len(build_split(with_cache, "train")[0].meta.agents) >= 2
    assert "1 of 1 shards of train are not written yet" in caplog.text


def test_a_folder_that_does_not_exist_is_taken_for_a_mistyped_one(config_of, tmp_path):
    with pytest.raises(ConfigError, match="nocache: there is no such folder"):
        build_split(config_of(cache_root=str(tmp_path / "nocache")), "train")


def test_a_view_that_cannot_be_read_is_reported_and_skipped_as_without_a_cache(config_of, copied_town, tmp_path):
    config = config_of(root=str(copied_town))
    index = build_split(config, "val").index
    ref = index.frame(0)
    index.image_path(ref, ref.agents[0], 0).write_bytes(b"")
    cache_root = str(tmp_path / "cache")
    report = fill_cache(CacheConfig(cache_root=cache_root, workers=1), config)
    assert "1 views could not be read" in report
    assert "the file is empty" in report
    dataset = build_split(config_of(root=str(copied_town), cache_root=cache_root), "val")
    assert "the file is empty" in dataset[0].skipped[0]


def test_settings_say_what_the_cache_was_made_with(cached):
    config, with_cache = cached()
    settings = json.loads((Path(with_cache.cache_root) / "train" / "settings.json").read_text())
    assert settings["data.panorama.width"] == config.panorama.width
    assert settings["data.depth.kind"] == "z"


@pytest.mark.parametrize("content", [b'{"data.layout": "pano', b"\xff\xfe", b"[]"])
def test_damaged_settings_are_named_and_written_anew(cached, content):
    config, with_cache = cached()
    path = Path(with_cache.cache_root) / "train" / "settings.json"
    whole, asked = path.read_bytes(), CacheConfig(cache_root=with_cache.cache_root, workers=1)
    path.write_bytes(content)
    for use in (lambda: build_split(with_cache, "train"), lambda: fill_cache(asked, config)):
        with pytest.raises(ConfigError, match=rf"^{path}: damaged \(.*delete it and start the command that filled"):
            use()
    path.unlink()
    views = {each: each.stat().st_mtime_ns for each in path.parent.rglob("*.lmdb")}
    fill_cache(asked, config)
    assert path.read_bytes() == whole
    assert {each: each.stat().st_mtime_ns for each in views} == views


def test_short_scenarios_share_a_shard_and_long_ones_have_theirs(cached, config_of, copied_town, monkeypatch):
    """Of five scenarios with two frames each, shards of four hold two; one that comes last changes none before it."""
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 4)
    (street,) = (copied_town / "train").iterdir()
    for number in range(1, 5):
        shutil.copytree(street, street.with_name(f"{street.name}_{number}"))
    changes = {"root": str(copied_town), "depth_root": None}
    config, with_cache = cached(**changes)
    folder = Path(with_cache.cache_root) / "train"
    names = sorted(path.parent.name for path in folder.rglob("*.lmdb"))
    assert names == [street.name, f"{street.name}_2", f"{street.name}_4"]
    for first, second in pairs((config, with_cache), "train"):
        assert torch.equal(first.target.depth > 0, second.target.depth > 0)
        assert first.meta == second.meta
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.lmdb")}
    shutil.copytree(street, street.with_name(f"{street.name}_5"))
    with pytest.raises(ConfigError, match=rf"other frames or agents of train/{street.name}_5"):
        build_split(with_cache, "train")
    fill_cache(CacheConfig(cache_root=with_cache.cache_root, workers=1), config)
    changed = [path.parent.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert changed == [f"{street.name}_4"]  # now of two
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
    assert [shard.number for shard in plan(build_split(config, "train").index)] == [0, 1] * 6


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_scenario_that_comes_or_goes_at_the_front_is_named(cached, copied_town, monkeypatch, change):
    """Shards are named after their first scenario: those of before have other names than those that are looked for."""
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 4)
    (street,) = (copied_town / "train").iterdir()
    first = street.with_name("a_first")
    for name in ("z_1", "z_2", *(["a_first"] if change == "removed" else [])):
        shutil.copytree(street, street.with_name(name))
    config, with_cache = cached(root=str(copied_town), depth_root=None)
    if change == "added":
        shutil.copytree(street, first)
    else:
        shutil.rmtree(first)
    with pytest.raises(ConfigError, match=r"other frames or agents of train/a_first: expected data\.exclude"):
        build_split(with_cache, "train")
    before = set(Path(with_cache.cache_root).glob("train/*/*.lmdb"))
    report = fill_cache(CacheConfig(cache_root=with_cache.cache_root, workers=1), config)
    old = before - {shard.path(Path(with_cache.cache_root)) for shard in plan(build_split(config, "train").index)}
    size = sum(path.stat().st_size for path in old)
    assert f"\n{len(old)} shards of {size / 1e9:.2f} GB were made for other frames" in report
    assert all(f"\n  {path}" in report for path in old)
    for one, other in pairs((config, with_cache), "train"):
        assert one.meta == other.meta


@pytest.mark.slow  # each process imports torch
def test_the_command_fills_a_cache_in_several_processes(config_of, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
    config, cache_root = config_of(), tmp_path / "cache"
    data = [f"data.root={config.root}", f"data.depth_root={config.depth_root}", "data=panorama"]
    size = ["data.panorama.height=84", "data.panorama.width=336"]
    main(["cache", *data, *size, f"cache_root={cache_root}", "splits=[val]", "workers=2"])
    assert f"train with data.cache_root={cache_root}" in capsys.readouterr().out
    cache = build_split(config_of(cache_root=str(cache_root)), "val")
    cache.ready.files.read = None
    assert torch.equal(cache[0].observation.images, build_split(config, "val")[0].observation.images)


def test_a_full_disk_is_named(config_of, tmp_path, capsys, monkeypatch):
    shard = tmp_path / "cache" / "validate" / "000.lmdb"

    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(shard))

    monkeypatch.setattr("coopmap.data.cache.command.fill", fill)
    config = config_of()
    data = [f"data.root={config.root}", f"data.depth_root={config.depth_root}", "data=panorama", "splits=[val]"]
    with pytest.raises(SystemExit) as stop:
        main(["cache", *data, f"cache_root={tmp_path / 'cache'}"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f" for {shard}; files that were complete stay\n")


def test_a_root_one_level_too_high_is_told(config_of, tmp_path):
    config = config_of()
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "train").symlink_to(Path(config.root) / "train")
    too_high = replace(config, root=str(tmp_path / "data"), town=None)
    with pytest.raises(DatasetLayoutError, match=f"one level too high; set it to {tmp_path / 'data' / 'mine'}$"):
        fill_cache(CacheConfig(cache_root=str(tmp_path / "cache"), workers=1), too_high)


def test_the_command_needs_a_folder(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["cache", "data.root=/nowhere"])
    assert stop.value.code == 2
    assert "cache_root is not set" in capsys.readouterr().err
