"""Sweeps that hold something else than meters in the LiDAR's frame are named before anything is learned from them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coopmap.config.cache import CacheConfig
from coopmap.config.data import DataConfig
from coopmap.config.synth import TownConfig
from coopmap.data import sweep_probe
from coopmap.data.cache.command import fill_cache
from coopmap.data.datamodule import build_split
from coopmap.data.opv2v import AgentMetadata, DatasetLayoutError, SplitIndex, read_agent
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.sweep_probe import suspect_sweeps

Change = Callable[[np.ndarray], np.ndarray]
REAL = Path(__file__).parents[3] / "shared" / "real" / "carla_five"

REFUSED: dict[str, tuple[Change, str]] = {
    "centimeters": (lambda p: 100 * p, "the sweeps are in centimeters"),
    "twice": (lambda p: 2 * p, r"the sweeps are in (1\.[89]|2)\d* x meters"),
    "upside down": (lambda p: p * (1, 1, -1), "z points down in the sweeps"),
    "camera axes": (lambda p: np.stack([p[:, 1], -p[:, 2], p[:, 0]], 1), "y points down in the sweeps"),
}
WARNED_OF: dict[str, tuple[Change, str]] = {
    "mirrored": (lambda p: p * (1, -1, 1), "y points left in the sweeps"),
    "turned": (lambda p: p * (-1, -1, 1), "x points backward and y left"),
    "exchanged": (lambda p: p[:, [1, 0, 2]], "x points right and y forward"),
    "a little large": (lambda p: 1.25 * p, r"in 1\.\d x meters.*'true_ego_pos'"),
    "from the ground": (lambda p: p + np.array([0, 0, 1.9]), "vehicles that the metadata list nearby hold points"),
}


def rewrite(path: Path, change: Change) -> None:
    """Change the points of an ASCII sweep, x y z in CARLA's axes."""
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("DATA")) + 1
    rows = [line.split() for line in lines[start:]]
    points = change(np.array([row[:3] for row in rows], float))
    body = [" ".join([*(f"{value:.4f}" for value in point), *row[3:]]) for point, row in zip(points, rows, strict=True)]
    path.write_text("\n".join([*lines[:start], *body, ""]))


@pytest.fixture
def rewritten(config_of: Callable[..., DataConfig], copied_town: Path) -> Callable[[Change], DataConfig]:
    """Configuration of the town with other sweeps, and no other depth."""

    def write(change: Change) -> DataConfig:
        for path in copied_town.glob("*/*/*/*.pcd"):
            rewrite(path, change)
        return config_of(root=str(copied_town), depth_root=None)

    return write


@pytest.mark.parametrize("name", REFUSED)
def test_sweeps_in_another_unit_or_other_axes_are_refused_by_name(name: str, rewritten) -> None:
    change, expected = REFUSED[name]
    config = rewritten(change)
    with pytest.raises(DatasetLayoutError, match=rf"\.pcd: by the road, .*{expected} .*Write meters"):
        build_split(config, "train")


@pytest.mark.parametrize("name", WARNED_OF)
def test_what_the_road_does_not_tell_for_certain_is_warned_of(name: str, rewritten, caplog) -> None:
    change, expected = WARNED_OF[name]
    caplog.clear()
    build_split(rewritten(change), "train")
    (record,) = caplog.records
    assert re.search(expected, record.getMessage())


def test_a_cache_is_not_filled_from_them(rewritten, tmp_path: Path) -> None:
    config = replace(rewritten(REFUSED["centimeters"][0]), cache_root=str(tmp_path / "cache"))
    with pytest.raises(DatasetLayoutError, match="centimeters"):
        fill_cache(CacheConfig(cache_root=config.cache_root, workers=1), config)


def test_sound_sweeps_are_taken_silently(rewritten, caplog) -> None:
    config = rewritten(lambda p: p)
    for split in ("train", "val"):
        build_split(config, split)
    assert not caplog.records


@pytest.mark.parametrize("kept", [0, 100])
def test_sweeps_of_few_points_say_nothing(kept: int, rewritten, copied_town: Path) -> None:
    rewritten(lambda p: 100 * p)
    for path in copied_town.glob("*/*/*/*.pcd"):
        lines = path.read_text().splitlines()
        head = [f"{line.split()[0]} {kept}" if line.split()[0] in ("WIDTH", "POINTS") else line for line in lines[:20]]
        start = next(number for number, line in enumerate(lines) if line.startswith("DATA")) + 1
        path.write_text("\n".join([*head[:start], *lines[start : start + kept], ""]))
    assert suspect_sweeps(SplitIndex.build(copied_town, "train")) is None


def test_a_single_strange_sweep_is_none_of_the_splits(rewritten, copied_town: Path) -> None:
    index = SplitIndex.build(copied_town, "train")
    ref = index.frame(0)
    rewrite(index.lidar_path(ref, ref.agents[0]), lambda p: 100 * p)
    assert suspect_sweeps(index) is None


def test_a_wrong_height_of_the_lidar_refuses_nothing(town: TownConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vehicles are where the metadata list them: the sweeps are right."""

    def half_as_high(path: Path) -> AgentMetadata:
        metadata = read_agent(path)
        return replace(metadata, rig=replace(metadata.rig, ground_height_m=metadata.rig.ground_height_m / 2))

    monkeypatch.setattr(sweep_probe, "read_agent", half_as_high)
    monkeypatch.setattr(sweep_probe, "LEAST_BOXES", 5)
    suspicion = suspect_sweeps(SplitIndex.build(town.root, "train"))
    assert suspicion is not None
    assert not suspicion.is_certain
    assert "'lidar_pose'" in suspicion.remedy


@pytest.fixture
def recorded(tmp_path: Path) -> SplitIndex:
    """Four recorded cars, as four ticks of one; nothing is copied."""
    if not REAL.is_dir():
        pytest.skip("no recorded frame here")
    for car in range(1, 5):
        folder = tmp_path / "train" / "scene" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{car:06d}.yaml").symlink_to(REAL / f"{car}.yaml")
        (folder / f"{car:06d}.pcd").symlink_to(REAL / f"{car}_lidar.pcd")
    return SplitIndex.build(tmp_path, "train")


def test_recorded_sweeps_pass_and_others_made_of_them_do_not(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    assert suspect_sweeps(recorded) is None
    monkeypatch.setattr(sweep_probe, "read_sweep", lambda path: 2 * read_sweep(path))
    suspicion = suspect_sweeps(recorded)
    assert suspicion is not None
    assert suspicion.is_certain
    monkeypatch.setattr(sweep_probe, "LEAST_TELLING", 4)  # of one tick
    monkeypatch.setattr(sweep_probe, "read_sweep", lambda path: read_sweep(path) * np.float32([-1, 1, -1]))
    suspicion = suspect_sweeps(recorded)
    assert suspicion is not None
    assert "x points backward and y left" in suspicion.reason
