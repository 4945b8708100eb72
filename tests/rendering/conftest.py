"""Checkpoints of untrained models, on the tiny town."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coopmap import load_config
from coopmap.config.synth import TownConfig
from coopmap.training.assembly import build_module


@pytest.fixture(scope="session")
def make_checkpoint(
    tiny_model: tuple[str, ...], town: TownConfig, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes the checkpoint of an untrained model, as a run of so configured would have it."""

    def make(*overrides: str) -> Path:
        torch.manual_seed(0)
        roots = ("data.town=null", f"data.root={town.root}", f"data.depth_root={town.depth_root}")
        loading = ("data.num_workers=0", "data.max_views_per_gpu=4")
        module = build_module(load_config([*tiny_model, *loading, *roots, *overrides]))
        file = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
        file.parent.mkdir()
        content = {"state_dict": module.state_dict(), "global_step": 3}
        module.on_save_checkpoint(content)
        torch.save(content, file)
        return file

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()
