"""The study's script asks for runs that can be composed, equal but for what its arms are about."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config import Config

from .stand_in import put_stand_in

REPOSITORY = Path(__file__).parents[2]
LAYOUTS = {
    "mosaic": "mosaic",
    "cameras": "cameras",
    "fusion_mean": "grouped",
    "fusion_cross": "grouped",
    "fusion_conv_gru": "grouped",
    "fusion_con": "warped",
}
"""By what the names of arms contain; the others have panoramas."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What the script calls, once with every arm and once more with arms that it must leave alone."""
    if shutil.which("bash") is None or shutil.which("flock") is None:
        pytest.skip("needs bash and flock")
    folder = tmp_path_factory.mktemp("arms")
    log = folder / "calls"
    settings = put_stand_in(folder) | {"OUT": str(folder / "runs"), "ROOT": str(folder / "streets")}
    for _ in range(2):
        subprocess.run(["experiments/study/arms.sh"], cwd=REPOSITORY, env={**os.environ, **settings}, check=True)
    assert streets(folder / "streets_1") == ["test/d", "train/a", "validate/c"]
    assert streets(folder / "streets_without_grid") == [
        "test/streets_looks_suburb_d",
        "train/streets_bright_suburb_a",
        "train/streets_looks_suburb_a",
        "validate/streets_bright_suburb_c",
        "validate/streets_looks_suburb_c",
    ]
    return [line.split()[2:] for line in log.read_text().splitlines()]


def streets(root: Path) -> list[str]:
    """Splits and scenarios of a root."""
    return sorted(f"{path.parent.name}/{path.name}" for path in root.glob("*/*"))


def composed(calls: list[list[str]]) -> dict[str, Config]:
    """Configurations of the first seed's trainings by the name of the arm."""
    trainings = [[text for text in call[1:] if text != "resume=auto"] for call in calls if call[0] == "train"]
    overrides = [each for each in trainings if not {"seed=1", "seed=2", "seed=3", "seed=4"} & {*each}]
    return {Path(config.run_dir).name: config for config in map(load_config, overrides)}


def test_every_arm_is_trained_and_evaluated_once(calls):
    names = [call[0] for call in calls]
    assert names.count("train") == names.count("evaluate") == 75
    assert names.count("synth") == 6


def test_arms_differ_in_what_they_are_about(calls):
    arms = composed(calls)
    assert len(arms) == 50
    for name, config in arms.items():
        assert (config.data.max_views_per_gpu, config.data.min_agents, config.data.max_agents) == (8, 4, 4)
        assert config.data.steps_per_epoch == 600
        assert config.model.matching.enabled == (not name.startswith(("regression", "relative")))
        assert config.model.pose_from == ("alignment" if config.model.matching.enabled else "head")
        slow = not config.model.matching.enabled and name != "regression_fast_0"
        assert config.optim.lr_of == ({"dense_head": 1e-4} if slow else {})
        assert config.seed == 0
        assert config.data.layout == next((layout for part, layout in LAYOUTS.items() if part in name), "panorama")
        assert config.model.inputs.rays == any(part in name for part in ("mosaic", "rig", "fusion"))
        assert config.model.ground_range == (not name.startswith("no_ground"))
        assert config.model.matching.dense == (name == "dense_0")
        assert config.data.sampling.foreign_prob == (0.25 if name == "foreign_0" else 0)
    fusions = {
        name: (arm.model.fusion.kind, arm.model.fusion.radius) for name, arm in arms.items() if "fusion_" in name
    }
    assert len(fusions) == 8
    assert fusions["fusion_conv_gru_0"] == ("conv_gru", 0)
    assert fusions["fusion_cross_attention_radius1_0"] == ("cross_attention", 1)
    assert arms["rate5e-4_0"].optim.lr == 5e-4
    weights = {name: config.loss.weights for name, config in arms.items()}
    assert (weights["panorama_0"].range, weights["panorama_0"].alignment, weights["panorama_0"].pts3d) == (2, 0.1, 0)
    assert (weights["ranges_heavy_0"].range, weights["ranges_unaligned_0"].alignment) == (8, 0)
    assert weights["ranges_published_0"].pts3d == 1
    assert arms["panorama_0"].optim.lr == arms["mosaic_0"].optim.lr == arms["cameras_rig_0"].optim.lr == 1e-3
    assert [arms[name].data.panorama.densify_px for name in ("lidar_0", "lidar_densified_0")] == [0, 1]
    assert arms["streets16_0"].data.root.endswith("_16")
    assert arms["without_grid_0"].data.root.endswith("_without_grid")
    assert arms["without_grid_0"].data.depth_root.endswith("_without_grid_depth")
