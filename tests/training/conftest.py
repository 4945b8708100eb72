"""A tiny town on disk, and overrides that make a run of seconds on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from coopmap import load_config
from coopmap.config.synth import tiny_town
from coopmap.synthetic import render_town
from coopmap.train import TrainingResult, train

TINY = (
    "machine=laptop",
    "logger=csv",
    "callbacks.progress=none",
    "data.panorama.height=28",
    "data.panorama.width=112",
    "data.steps_per_epoch=3",
    "data.num_workers=0",
    "data.max_views_per_gpu=4",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "model.encoder.dim=24",
    "model.encoder.depth=1",
    "model.encoder.num_heads=2",
    "model.info_sharing.dim=24",
    "model.info_sharing.depth=3",
    "model.info_sharing.num_heads=2",
    "model.heads.layer_dims=[8,8,8,8]",
    "model.heads.feature_dim=8",
    "model.heads.pose_dim=8",
    "model.heads.scale_dim=8",
    "optim.lr=0.01",
)


@pytest.fixture(scope="session")
def town_roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Root and depth root of a rendered town."""
    folder = tmp_path_factory.mktemp("town")
    root, depth_root = folder / "town", folder / "depth"
    render_town(tiny_town(str(root), str(depth_root)))
    return root, depth_root


def tiny(town_roots: tuple[Path, Path], runs_root: Path, *more: str) -> list[str]:
    root, depth_root = town_roots
    return [*TINY, f"runs_root={runs_root}", f"data.root={root}", f"data.depth_root={depth_root}", *more]


@pytest.fixture
def overrides(town_roots: tuple[Path, Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a tiny run into ``tmp_path / "runs"``, with further ones on top."""
    return lambda *more: tiny(town_roots, tmp_path / "runs", *more)


@pytest.fixture(scope="session")
def finished(town_roots: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run that went to its end: nine steps, three epochs, checkpoints at every second step."""
    chosen = tiny(town_roots, tmp_path_factory.mktemp("runs"), "checkpoint.every_n_steps=2")
    return train(load_config(chosen), chosen)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads only get in each other's way at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_wandb_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
