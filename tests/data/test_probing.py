"""Cars that can never be read cost themselves; a fault of all of them ends a run before it begins."""

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from coopmap.config import ConfigError
from coopmap.config.cache import CacheConfig
from coopmap.config.data import DepthConfig
from coopmap.data import OPV2VDataModule, SampleRequest, probing
from coopmap.data.cache.command import fill_cache
from coopmap.data.samples import SkippedSample
from coopmap.training.callbacks import SkippedFiles
from coopmap.types import Sample


def folders(root, split="train"):
    return sorted(path for path in (root / split).glob("*/*") if path.is_dir())


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_car_without_cameras_costs_itself_and_not_its_frames(config_of, copied_town, tmp_path, caplog, is_cached):
    car = folders(copied_town)[0]
    for image in car.glob("*_camera*.png"):
        image.unlink()
    config = config_of(root=str(copied_town), min_agents=2)
    if is_cached:
        config.cache_root = str(tmp_path / "cache")
        fill_cache(CacheConfig(cache_root=config.cache_root, workers=1), config)
    module = OPV2VDataModule(config)
    module.check()
    dataset = module.dataset("train")
    assert len(dataset)
    assert f"car {car.name} of {car.parent.name} can never be read" in caplog.text
    for number in range(len(dataset)):
        sample = dataset[number]
        assert isinstance(sample, Sample)
        assert not sample.skipped
        assert sample.meta.scenario != car.parent.name or car.name not in sample.meta.agents


@pytest.mark.parametrize("from_frame_on", [1, 3])
def test_a_camera_that_dies_on_the_way_costs_its_car_the_rest_of_the_drive(
    config_of, copied_town, caplog, from_frame_on
):
    scenario = next((copied_town / "train").iterdir())
    cars = sorted(path for path in scenario.iterdir() if path.is_dir())
    for car in cars:  # four ticks instead of two
        for path in list(car.iterdir()):
            shutil.copy(path, car / f"{int(path.name[:6]) + 100:06d}{path.name[6:]}")
    frames = sorted(path.stem for path in cars[0].glob("*.yaml"))
    for frame in frames[from_frame_on:]:
        (cars[0] / f"{frame}_camera2.png").unlink()
    config = config_of(root=str(copied_town), depth_root=None, min_agents=len(cars))
    module = OPV2VDataModule(config)
    module.check()
    dataset = module.dataset("train")
    lost = len(frames) - from_frame_on
    assert f"car {cars[0].name} of {scenario.name} lacks files in {lost} of its {len(frames)} frames" in caplog.text
    assert f"train: {lost} of {len(frames)} frames have fewer than data.min_agents={len(cars)} agents" in caplog.text
    assert [dataset.index.frame(int(frame)).frame for frame in dataset.frames] == frames[:from_frame_on]
    assert module.skipped_files() == {}


def test_a_damaged_sweep_costs_no_other_car_where_sweeps_are_merged(config_of, copied_town):
    car = folders(copied_town)[0]
    for sweep in car.glob("*.pcd"):
        sweep.write_bytes(sweep.read_bytes()[:3000])
    config = config_of(root=str(copied_town), depth_root=None, depth=DepthConfig(merge_agents=True))
    dataset = OPV2VDataModule(config).dataset("train")
    index = dataset.index
    agents = index.agents[index.frame_agents].astype(str)
    scenarios = index.scenarios[np.repeat(index.frame_scenario, index.num_agents)].astype(str)
    of_the_car = (agents == car.name) & (scenarios == car.parent.name)
    assert 0 < of_the_car.sum() < len(agents)
    assert probing.unreadable_cars(dataset).tolist() == of_the_car.tolist()
    for seed in range(4):
        sample = dataset[SampleRequest(int(dataset.frames[0]), 2, seed)]
        assert isinstance(sample, Sample)
        assert car.name not in sample.meta.agents
        assert len(sample.skipped) <= 1


def test_a_fault_of_all_cars_is_one_line(config_of, copied_town):
    for path in copied_town.glob("train/*/*/*.yaml"):
        content = yaml.safe_load(path.read_text())
        del content["camera2"], content["camera3"]
        path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"cars cannot be read, for instance .*'camera2' is missing") as caught:
        OPV2VDataModule(config_of(root=str(copied_town))).check()
    assert "\n" not in str(caught.value)


def test_of_thousands_of_cars_those_with_most_frames_are_probed(monkeypatch):
    monkeypatch.setattr(probing, "MOST_CARS", 5)
    car_of = np.repeat(np.arange(14), [1, 3, 1, 1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    assert probing._probed(car_of).tolist() == [0, 1, 4, 8, 13]
    assert probing._probed(np.arange(5).repeat(2)).tolist() == [0, 1, 2, 3, 4]


def test_validation_is_probed_before_the_first_step_too(config_of, copied_town):
    for path in copied_town.glob("validate/*/*/*_camera1.png"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"^split 'val': \d+ of \d+ cars cannot be read, .*_camera1\.png"):
        OPV2VDataModule(config_of(root=str(copied_town))).check()


def test_agents_on_different_ticks(config_of, copied_town):
    for number, folder in enumerate(folders(copied_town)):
        for path in list(folder.iterdir()):
            path.rename(folder / f"{int(path.name[:6]) + number:06d}{path.name[6:]}")
    with pytest.raises(ConfigError, match=r"frames never coincide: in .* car \d+ has \d+ and car \d+ has \d+"):
        OPV2VDataModule(config_of(root=str(copied_town), depth_root=None)).dataset("train")


@pytest.mark.parametrize(
    ("most", "reason"),
    [
        (2, r"; frames have at most 2 agents, fewer than data\.min_agents=4 asks for$"),
        (1, "; each scenario has one car only$"),
    ],
)
def test_more_agents_than_any_frame_has(config_of, copied_town, most, reason):
    for scenario in copied_town.glob("train/*"):
        for car in sorted(path for path in scenario.glob("*") if path.is_dir())[most:]:
            shutil.rmtree(car)
    data = OPV2VDataModule(config_of(root=str(copied_town), depth_root=None, min_agents=4, max_agents=4))
    with pytest.raises(ConfigError, match=reason):
        data.dataset("train")


def test_a_damaged_file_costs_its_agent_or_another_frame_and_at_last_the_sample(config_of, copied_town):
    dataset = OPV2VDataModule(config_of(root=str(copied_town))).dataset("train")
    ref = dataset.index.frame(int(dataset.frames[0]))
    for folder in folders(copied_town):
        for image in folder.glob("*_camera1.png"):
            image.write_bytes(image.read_bytes()[:200])
    sample = dataset[SampleRequest(int(dataset.frames[0]), 2, seed=0)]
    assert isinstance(sample, SkippedSample)
    assert f"{ref.frame}_camera1.png" in sample.skipped[0]


def test_the_list_at_the_end_of_an_epoch(caplog):
    files = {"train": ["b.png: is truncated"], "val": ["a.yaml: is a folder"]}
    module = SimpleNamespace(skipped_files=lambda: files)
    trainer = SimpleNamespace(datamodule=module, world_size=1, is_global_zero=True, global_step=7)
    callback = SkippedFiles()
    with caplog.at_level(logging.WARNING):
        callback.on_train_epoch_end(trainer, None)
        callback.on_train_epoch_end(trainer, None)
    assert caplog.text.count("2 files could not be read and were skipped up to step 7") == 1
    assert "train: b.png: is truncated" in caplog.text
