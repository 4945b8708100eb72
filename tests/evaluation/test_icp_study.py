"""How far off ICP may start, on sweeps of a street that is known exactly."""

import sys
from pathlib import Path

import numpy as np
import pytest

from coopmap import bench
from coopmap.config import ConfigError
from coopmap.config.icp import IcpStudyConfig
from coopmap.evaluation.icp import prepare_sweep
from coopmap.evaluation.icp_study import benchmark, measure
from coopmap.evaluation.noise import Level

pytest.importorskip("small_gicp")

REAL = Path(__file__).parents[2].parent / "shared" / "real" / "carla_five"


def street() -> np.ndarray:
    """Points on the ground and on the walls of some houses."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-30, 30, (6000, 3))
    points[:, 1] = rng.uniform(-4, 1.9, 6000)
    points[:2500, 1] = 1.9
    for number, (axis, place) in enumerate(((0, 9), (0, -11), (2, 12), (2, -17), (0, 21))):
        points[2500 + 700 * number : 3200 + 700 * number, axis] = place
    return points.astype(np.float32)


def test_small_errors_are_corrected_and_large_ones_are_told() -> None:
    sweeps = [prepare_sweep(street())] * 2
    poses = np.tile(np.eye(4), (2, 1, 1))
    exact, near, far = (measure(sweeps, poses, level, 4) for level in (Level(0, 0), Level(1, 2), Level(10, 0)))
    assert [len(each.trans_m) for each in (exact, near, far)] == [1, 4, 4]
    assert max(exact.trans_m.max(), near.trans_m.max()) < 0.05
    assert near.row("1, 2").cells[1:4] == [4, 1.0, 1.0]
    assert not (far.trans_m < 0.5).any()


def test_the_folder_and_the_levels_are_named_where_they_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected at least two NAME\.yaml"):
        benchmark(IcpStudyConfig(tick=str(tmp_path)))
    with pytest.raises(ConfigError, match="levels=far: expected meters/degrees"):
        benchmark(IcpStudyConfig(tick=str(tmp_path), levels=["far"]))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real sweeps here")
def test_real_sweeps_are_registered_from_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "icp.md"
    monkeypatch.setattr(sys, "argv", ["bench", "icp", f"tick={REAL}", "levels=0/0", f"output={output}"])
    bench.main()
    row = next(line for line in output.read_text().splitlines() if line.startswith("| 0, 0 |"))
    starts, answered, right = (cell.strip() for cell in row.split("|")[2:5])
    assert starts == "10"
    assert answered == right  # what is not discarded as implausible is right
    assert float(right.rstrip("% ")) >= 60
