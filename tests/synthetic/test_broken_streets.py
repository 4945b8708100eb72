"""The copies of streets that the study of defects trains on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.config.synth import TownConfig
from coopmap.data import opv2v
from coopmap.geometry.carla import carla_from_pose, pose_ue_from_cv

SCRIPT = Path(__file__).parents[2] / "experiments" / "study" / "broken_streets.py"


def broken(defect: str, streets: TownConfig, tmp_path: Path) -> tuple[Path, Path]:
    """Root and depth of a broken copy."""
    root, depth = tmp_path / "streets", tmp_path / "streets_depth"
    root.symlink_to(streets.root)
    depth.symlink_to(str(streets.depth_root))
    subprocess.run([sys.executable, SCRIPT, defect, root, tmp_path / "out"], check=True)
    return tmp_path / "out", tmp_path / "out_depth"


@pytest.mark.parametrize(("defect", "place"), [("pitch_sign", 5), ("roll_sign", 3)])
def test_one_angle_of_every_pose_is_turned(defect, place, streets, tmp_path):
    out, _ = broken(defect, streets, tmp_path)
    path = next(out.rglob("0*.yaml"))
    before, after = (
        opv2v.read_agent(root / path.relative_to(out), with_vehicles=False) for root in (Path(streets.root), out)
    )
    first, second = (carla_from_pose(pose_ue_from_cv(each.pose)) for each in (before, after))
    assert abs(first[place]) > 1e-3
    first[place] *= -1
    np.testing.assert_allclose(second, first, atol=1e-9)
    image = next(out.rglob("*_camera0.png"))
    assert image.samefile(Path(streets.root) / image.relative_to(out))
    recorded, copied = (
        yaml.safe_load((root / path.relative_to(out)).read_text()) for root in (Path(streets.root), out)
    )
    assert copied["vehicles"] == recorded["vehicles"]


def test_depth_is_thinned_and_blended(streets, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, few = broken("few_points", streets, tmp_path / "a")
    _, blended = broken("bilinear_depth", streets, tmp_path / "b")
    names = sorted(path.relative_to(few) for path in few.rglob("*.npy"))
    dense, sparse, mixed = (
        np.stack([np.load(root / name) for name in names]) for root in (Path(str(streets.depth_root)), few, blended)
    )
    known = sparse > 0
    np.testing.assert_array_equal(sparse[known], dense[known])
    assert known.sum() / (dense > 0).sum() == pytest.approx(0.024, rel=0.05)
    assert mixed.sum() == pytest.approx(sparse.sum(), rel=0.05)  # zeros pull the others down
    assert (mixed > 0).mean() == pytest.approx(4 * known.mean(), rel=0.05)
