"""Rendering a whole set: reproducible, complete or absent, and never over something else."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coopmap.config.checks import ConfigError
from coopmap.config.synth import ScenarioCounts, TownConfig, tiny_town
from coopmap.report import progress
from coopmap.synthetic import dataset, read_config, render_town


def checksums(root: str) -> dict[str, str]:
    files = sorted(path for path in Path(root).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_with_two_workers(town: TownConfig, tmp_path: Path) -> None:
    again = tiny_town(str(tmp_path / "town"), str(tmp_path / "depth"), workers=2)
    render_town(again)
    assert checksums(again.root) == checksums(town.root)
    assert checksums(again.depth_root) == checksums(town.depth_root)


def test_whole_town_is_left_alone(town: TownConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(town.root).rglob("*")}
    render_town(town)
    assert {path: path.stat().st_mtime_ns for path in Path(town.root).rglob("*")} == before
    assert "already there" in capsys.readouterr().err


def test_record_gives_the_configuration_back(town: TownConfig) -> None:
    stored = read_config(town.root)
    stored.root, stored.depth_root, stored.workers = town.root, town.depth_root, town.workers
    assert stored == town


def test_other_configuration_is_refused_by_name(town: TownConfig) -> None:
    before = checksums(town.root)
    with pytest.raises(ConfigError, match=r"another seed; choose another root.*overwrite=true"):
        render_town(tiny_town(town.root, town.depth_root, seed=7))
    assert checksums(town.root) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_that_is_no_town_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    root = tmp_path / "recordings"
    root.mkdir()
    (root / "precious.txt").write_text("real data")
    with pytest.raises(ConfigError, match=r"root=.*recordings: exists and is not a synthetic town"):
        render_town(tiny_town(str(root), str(tmp_path / "depth"), overwrite=overwrite))
    assert [path.name for path in root.iterdir()] == ["precious.txt"]


def one_frame(folder: Path, **changes: object) -> TownConfig:
    counts = ScenarioCounts(train=1, validate=0, test=0)
    return tiny_town(str(folder / "town"), str(folder / "depth"), scenarios=counts, frames=1, agents_max=2, **changes)


def test_rendering_says_how_far_it_is_where_output_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    render_town(one_frame(tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["Rendering 1 drives through the town", "1/1 drives  0:00:00 left"]


def test_overwrite_replaces_a_town(tmp_path: Path) -> None:
    render_town(one_frame(tmp_path))
    first = checksums(str(tmp_path / "town"))
    render_town(one_frame(tmp_path, seed=1, overwrite=True))
    second = checksums(str(tmp_path / "town"))
    assert first["town.yaml"] != second["town.yaml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "town"]


def test_a_town_without_scenarios_is_refused() -> None:
    with pytest.raises(ConfigError, match="a scenario in one of the splits at least"):
        ScenarioCounts(0, 0, 0)


def test_missing_depth_is_rendered_again(tmp_path: Path) -> None:
    render_town(one_frame(tmp_path))
    before = checksums(str(tmp_path / "depth"))
    (tmp_path / "depth").rename(tmp_path / "away")
    render_town(one_frame(tmp_path))
    assert checksums(str(tmp_path / "depth")) == before


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = dataset.render_agent, []

    def fails_at_third(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "render_agent", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        render_town(tiny_town(str(tmp_path / "town"), str(tmp_path / "depth")))
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_killed_rendering_leaves_no_root(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coopmap.synth", "root=town", "depth_root=depth", "workers=1", "image_scale=0.125"]
    (tmp_path / ".town.partial-other").mkdir()  # about to be locked, or left by a version that had no lock
    again = tiny_town(str(tmp_path / "town"), str(tmp_path / "depth"), overwrite=True)
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not list(tmp_path.glob(".town.partial-*/new/*/*/*/*.png")):
            assert process.poll() is None, "ended before writing anything"
            time.sleep(0.05)
        held = sorted(tmp_path.glob(".*.partial-*"))
        assert len(held) == 3
        assert not any(map(dataset._is_abandoned, held))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "town").exists()
    assert not (tmp_path / "depth").exists()
    os.utime(tmp_path / ".town.partial-other", (0, 0))
    render_town(again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "town"]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, 0.126])
def test_images_are_of_whole_pixels(scale: float) -> None:
    with pytest.raises(ConfigError, match=rf"^image_scale={scale}: expected a scale that makes whole pixels"):
        TownConfig(image_scale=scale)
