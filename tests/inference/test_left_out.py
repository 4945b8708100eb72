"""What `infer` could not use is named, with the reason, in what it prints and in what it writes."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from coopmap.config import Config
from coopmap.config.synth import TownConfig
from coopmap.data.opv2v import DataError
from coopmap.infer import main
from coopmap.inference import read_frame, read_images_of_folder

Run = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command; what it printed, and what its files say was left out."""

    def infer(*arguments: object) -> tuple[str, list[str]]:
        given = [f"checkpoint={checkpoint}", f"output={tmp_path / 'out'}", "edges=false", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["coopmap.infer", *given])
        main()
        return capsys.readouterr().out, json.loads((tmp_path / "out" / "cameras.json").read_text())["left_out"]

    return infer


@pytest.fixture
def own_frame(town: TownConfig, frame: Path, tmp_path: Path) -> Path:
    """A copy of the frame, to damage."""
    root = shutil.copytree(town.root, tmp_path / "town")
    return Path(root, frame.relative_to(town.root))


def agents_of(frame: Path) -> list[Path]:
    return sorted((path.parent for path in frame.parent.glob(f"*/{frame.name}.yaml")), key=lambda path: int(path.name))


@pytest.mark.parametrize(
    ("name", "reason"), [("{frame}.yaml", "cut off"), ("{frame}_camera2.png", "the PNG is truncated")]
)
def test_a_car_that_cannot_be_read_is_left_out_by_name(name: str, reason: str, own_frame: Path, run: Run) -> None:
    *others, last = agents_of(own_frame)
    damaged = last / name.format(frame=own_frame.name)
    damaged.write_bytes(damaged.read_bytes()[:400])
    printed, left_out = run(f"frame={own_frame}")
    assert "left out: 1\n" in printed
    (item,) = left_out
    assert item.startswith(f"{damaged}: ")
    assert reason in item
    assert f"  {item}\n" in printed
    assert f"agents {', '.join(car.name for car in others)}\n" in printed


def test_cars_that_are_asked_for_are_not_left_out(own_frame: Path, config: Config) -> None:
    first, last = agents_of(own_frame)[:: len(agents_of(own_frame)) - 1]
    damaged = last / f"{own_frame.name}_camera0.png"
    damaged.unlink()
    with pytest.raises(DataError, match=f"{damaged.name}: no such file"):
        read_frame(own_frame, config.data, [first.name, last.name])
    assert read_frame(own_frame, config.data).names[0] == first.name


def test_a_frame_of_which_nothing_can_be_read_says_why(own_frame: Path, config: Config) -> None:
    for car in agents_of(own_frame):
        (car / f"{own_frame.name}.yaml").write_text("lidar_pose: []")
    with pytest.raises(DataError, match="'lidar_pose' must hold"):
        read_frame(own_frame, config.data)


def test_cars_out_of_range_are_named(frame: Path, config: Config) -> None:
    views = read_frame(frame, replace(config.data, communication_range_m=1e-3))
    others = [car.name for car in agents_of(frame) if car.name not in views.names]
    assert len(others) >= 1
    assert [item.partition(":")[0] for item in views.left_out] == [f"car {name}" for name in others]
    assert "within 0.001 m (data.communication_range_m)" in views.left_out[0]
    assert read_frame(frame, replace(config.data, max_agents=9, communication_range_m=1e9)).left_out == ()


def test_a_road_side_unit_is_named_with_what_takes_it(own_frame: Path, run: Run) -> None:
    *cars, last = agents_of(own_frame)
    unit = last.rename(last.with_name("-1"))
    for metadata in unit.glob("*.yaml"):
        metadata.write_text(metadata.read_text().replace("RSU: false", "RSU: true"))
    printed, left_out = run(f"frame={own_frame}")
    assert left_out == ["road-side unit -1: data.include_rsu=false; data.include_rsu=true or agents=... takes it"]
    assert f"  {left_out[0]}\n" in printed
    for asked in ("data.include_rsu=true", f"agents=[{cars[0].name},{cars[1].name},-1]"):
        printed, left_out = run(f"frame={own_frame}", asked)
        assert left_out == []
        assert f"agents {cars[0].name}, {cars[1].name}, -1\n" in printed


def test_images_that_cannot_be_read_and_other_files_are_named(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((60, 80, 3), 90, np.uint8))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:50])
    (folder / "photo.heic").touch()
    printed, left_out = run(f"images={folder}", "size=84", "data.layout=cameras")
    assert left_out[0] == f"{folder / 'photo.heic'}: no image (.jpg, .jpeg, .png)"
    assert left_out[1].startswith(f"{folder / '1.png'}: ")
    assert len(left_out) == 2
    assert "left out: 2\n" in printed
    assert read_images_of_folder(folder, size=84).names == ("0.png", "2.png")
