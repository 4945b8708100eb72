"""What an evaluation reads, where cars can never be read."""

import json
import shutil
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.data import OPV2VDataModule
from coopmap.data.samples import SkippedSample
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.frames import read_frame_list
from coopmap.types import SkippedBatch


@pytest.fixture
def without_a_camera(town: Path, tmp_path: Path) -> Path:
    """A copy of the town; one car of the validation split has no images of camera 3, as one of OPV2V's."""
    copy = Path(shutil.copytree(town / "town", tmp_path / "copy"))
    car = min(path for path in copy.glob("validate/*/*") if path.is_dir())
    for image in car.glob("*_camera3.png"):
        image.unlink()
    return car


def test_a_split_is_measured_on_the_frames_that_training_validates_on(tiny: list[str], without_a_camera: Path) -> None:
    root = without_a_camera.parents[2]
    config = load_config([*tiny, f"data.root={root}", "data.min_agents=2", "data.max_agents=3"])
    training, evaluation = OPV2VDataModule(config.data), EvaluationData(config, "val")
    training.check()
    assert len(list(evaluation.val_dataloader())) == len(list(training.val_dataloader())) > 0
    validated, measured = training.dataset("val"), evaluation.dataset("val")
    assert measured.frames.tolist() == validated.frames.tolist()
    for number in range(len(measured)):
        sample = measured[number]
        assert not isinstance(sample, SkippedSample)
        assert sample.meta == validated[number].meta
        assert without_a_camera.name not in sample.meta.agents


def test_listed_frames_keep_the_agents_that_are_listed(tiny: list[str], without_a_camera: Path, tmp_path: Path) -> None:
    scenario, car = without_a_camera.parent, without_a_camera.name
    frame = min(without_a_camera.glob("*.yaml")).stem
    other = next(path.name for path in sorted(scenario.iterdir()) if path.is_dir() and path.name != car)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([{"scenario": scenario.name, "frame": frame, "agents": [car, other]}]))
    config = load_config([*tiny, f"data.root={scenario.parents[1]}"])
    (batch,) = EvaluationData(config, "frames", read_frame_list(listed)).val_dataloader()
    assert isinstance(batch, SkippedBatch)
    assert f"{frame}_camera3.png" in batch.skipped[0]


def test_listed_frames_may_have_fewer_agents_than_training_asks_for(
    tiny: list[str], town: Path, tmp_path: Path
) -> None:
    car, other = sorted(path for path in town.glob("town/validate/*/*") if path.is_dir())[:2]
    listed = tmp_path / "list.json"
    frame = min(car.glob("*.yaml")).stem
    listed.write_text(json.dumps([{"scenario": car.parent.name, "frame": frame, "agents": [car.name, other.name]}]))
    config = load_config([*tiny, "data.min_agents=4"])
    (batch,) = EvaluationData(config, "frames", read_frame_list(listed)).val_dataloader()
    assert [meta.agents for meta in batch.metas] == [(car.name, other.name)]


def test_listed_frames_are_found_in_the_folders_that_the_configuration_names(
    tiny: list[str], town: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(town / "town", tmp_path / "copy"))
    (root / "validate").rename(root / "streets <1>")
    car, other = sorted(path for path in root.glob("streets*/*/*") if path.is_dir())[:2]
    entry = {"scenario": car.parent.name, "frame": min(car.glob("*.yaml")).stem, "agents": [car.name, other.name]}
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([entry]))
    config = load_config([*tiny, f"data.root={root}", "data.depth_root=null", "data.splits={val: 'streets <1>'}"])
    data = EvaluationData(config, "frames", read_frame_list(listed))
    (batch,) = data.val_dataloader()
    assert [meta.scenario for meta in batch.metas] == [car.parent.name]
    assert data.split_of(car.parent.name) == "val"
    listed.write_text(json.dumps([entry | {"scenario": "elsewhere"}]))
    with pytest.raises(ConfigError, match=r"elsewhere is in none of the folders train, streets <1>, test, "):
        EvaluationData(config, "frames", read_frame_list(listed)).val_dataloader()


def test_samples_elsewhere_are_the_nearest_of_another_scenario_with_as_many_agents(
    tiny: list[str], town: Path, tmp_path: Path
) -> None:
    """In the order of the list, whatever other samples a rank measures."""
    root = Path(shutil.copytree(town / "town", tmp_path / "copy"))
    entries = []
    for folder, number, place in (("validate", 2, 0), ("test", 2, 0), ("test", 2, 1), ("validate", 3, 1)):
        cars = sorted(path for path in root.glob(f"{folder}/*/*") if path.is_dir())[:number]
        frame = sorted(cars[0].glob("*.yaml"))[place].stem
        entries.append({"scenario": cars[0].parent.name, "frame": frame, "agents": [car.name for car in cars]})
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(entries))
    data = EvaluationData(load_config([*tiny, f"data.root={root}"]), "frames", read_frame_list(listed))
    data.val_dataloader()
    metas = read_frame_list(listed).frames

    def partner(number: int) -> int | None:
        sample = data.elsewhere(metas[number])
        return None if sample is None else [*metas].index(sample.meta)

    assert [partner(number) for number in range(4)] == [1, 0, 0, None]
    damaged = min(root.glob(f"validate/*/*/{metas[0].frame}_camera0.png"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    data._elsewhere = None
    assert [partner(number) for number in (1, 2)] == [3, 3]


def test_the_training_split_is_measured_as_the_others_are(tiny: list[str]) -> None:
    config = load_config([*tiny, "data.sampling.min_covisibility=0.99", "data.vehicle_masks=false"])
    data = EvaluationData(config, "train")
    data.prepare_data()
    dataset = data.dataset("train")
    assert len(dataset) == len(dataset.index) > 0  # no limit of training's
    assert dataset.pairs.covisibility is None  # nor was it measured
    sample = dataset[0]
    assert not isinstance(sample, SkippedSample)
    assert sample.target.moving is not None
