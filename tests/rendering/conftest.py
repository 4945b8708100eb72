"""Checkpoints of untrained models, on the tiny town."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config.synth import TownConfig

from ..untrained import write_checkpoint


@pytest.fixture(scope="session")
def make_checkpoint(
    tiny_model: tuple[str, ...], town: TownConfig, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes the checkpoint of an untrained model, as a run of so configured would have it."""

    def make(*overrides: str) -> Path:
        roots = ("data.town=null", f"data.root={town.root}", f"data.depth_root={town.depth_root}")
        loading = ("data.num_workers=0", "data.max_views_per_gpu=4")
        config = load_config([*tiny_model, *loading, *roots, *overrides])
        return write_checkpoint(tmp_path_factory.mktemp("run"), config)

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()
