"""Overrides that make a run of seconds on the tiny town, and such a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config.synth import TownConfig
from coopmap.train import train
from coopmap.training.run import TrainingResult


@pytest.fixture(scope="session")
def tiny_run(tiny_model: tuple[str, ...], town: TownConfig) -> tuple[str, ...]:
    """Three epochs of three steps; ``runs_root`` is left to say."""
    return (
        *tiny_model,
        "logger=csv",
        "callbacks.progress=none",
        "callbacks.live_frames=0",
        "data.steps_per_epoch=3",
        "data.num_workers=0",
        "data.max_views_per_gpu=4",
        "trainer.max_epochs=3",
        "trainer.log_every_n_steps=1",
        "optim.lr=0.01",
        f"data.root={town.root}",
        f"data.depth_root={town.depth_root}",
    )


@pytest.fixture
def overrides(tiny_run: tuple[str, ...], tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a tiny run into ``tmp_path / "runs"``, with further ones on top."""
    return lambda *more: [*tiny_run, f"runs_root={tmp_path / 'runs'}", *more]


@pytest.fixture(scope="session")
def finished(tiny_run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run that went to its end: nine steps, three epochs, checkpoints at every second step, with pictures."""
    live = ("callbacks.live_frames=1", "checkpoint.every_n_steps=2")
    chosen = [*tiny_run, f"runs_root={tmp_path_factory.mktemp('runs')}", *live]
    return train(load_config(chosen), chosen)


@pytest.fixture(autouse=True)
def _no_wandb_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
