import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap.config.data import DataConfig, PanoramaConfig
from coopmap.config.synth import TownConfig


@pytest.fixture
def config_of(town: TownConfig) -> Callable[..., DataConfig]:
    """Configuration of the tiny town with small panoramas; keyword arguments change it."""

    def make(panorama: dict | None = None, **changes) -> DataConfig:
        values = {
            "root": town.root,
            "depth_root": town.depth_root,
            "max_agents": 3,
            "max_views_per_gpu": 6,
            "steps_per_epoch": 6,
            "num_workers": 0,
            "bad_frame_budget": 0.0,
        }
        return DataConfig(
            **(values | changes), panorama=PanoramaConfig(**({"height": 84, "width": 336} | (panorama or {})))
        )

    return make


@pytest.fixture
def copied_town(town: TownConfig, tmp_path: Path) -> Path:
    """A private copy of the town, to damage."""
    return Path(shutil.copytree(town.root, tmp_path / "copy"))
