"""Training from a cache, through the commands that a user types."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap.cli.main import main
from coopmap.config.synth import TownConfig
from coopmap.runs.metrics_file import read_metrics

FEW_STEPS = (
    "data.steps_per_epoch=4",
    "data.num_workers=0",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "callbacks.progress=none",
)


@pytest.fixture
def train_twice(
    tmp_path: Path, town: TownConfig, tiny_model: tuple[str, ...]
) -> Callable[..., tuple[list[dict], list[dict]]]:
    """Rows of ``metrics.csv`` of a run from files and of one from the cache."""

    def run(*overrides: str) -> tuple[list[dict], list[dict]]:
        data = ["experiment=cyl_posefix", *tiny_model, f"data.root={town.root}", *overrides]
        cache = tmp_path / "cache"
        main(["cache", *data, f"cache_root={cache}", "workers=1"])
        rows = []
        for name, source in (("files", []), ("cache", [f"data.cache_root={cache}"])):
            main(["train", *data, *FEW_STEPS, *source, f"runs_root={tmp_path / name}"])
            (file,) = (tmp_path / name).rglob("metrics.csv")
            rows.append(read_metrics(file))
        return rows[0], rows[1]

    return run


@pytest.mark.parametrize("depth", ["dense", pytest.param("lidar", marks=pytest.mark.slow)])
def test_the_demo_learns_the_same_from_the_cache(train_twice, town, depth):
    """Without exposure, directions within 7e-6 rad and ranges within rounding are all that differs."""
    place = f"data.depth_root={town.depth_root if depth == 'dense' else 'null'}"
    files, cache = train_twice(place, "data.augmentation.exposure=0")
    compared = 0
    for first, second in zip(files, cache, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() & LOSSES:
            assert second[name] == pytest.approx(first[name], rel=1e-3), (name, first["step"])
            compared += 1
    assert compared == 8 + 3  # steps, and validations before, between and after them


LOSSES = {"train/loss", "val/pose_trans_avg"}


@pytest.mark.slow
def test_exposure_after_the_warp_changes_losses_little(train_twice, town):
    """As the demo has it: levels of rounding in the images."""
    files, cache = train_twice(f"data.depth_root={town.depth_root}")
    for first, second in zip(files, cache, strict=True):
        for name in first.keys() & LOSSES:
            assert second[name] == pytest.approx(first[name], rel=0.02), (name, first["step"])
