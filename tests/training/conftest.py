"""Overrides that make a run of seconds on the tiny town, and such a run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

from coopmap import load_config
from coopmap.config.synth import TownConfig
from coopmap.models.counting import count_sample
from coopmap.train import train
from coopmap.training.run import TrainingResult
from coopmap.types import Observation


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
        "data.keep_in_memory=true",
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


@pytest.fixture(scope="package", autouse=True)
def _counted_once() -> Iterator[None]:
    """FLOPs of models with the same layers and inputs are counted once; ``test_model_facts.py`` asks the counter."""
    counts: dict[str, dict[str, int]] = {}

    def count(model: nn.Module, observation: Observation) -> dict[str, int]:
        shapes = {name: getattr(value, "shape", value) for name, value in vars(observation).items()}
        trained = [parameter.requires_grad for parameter in model.parameters()]
        key = f"{model} {trained} {shapes}"
        if key not in counts:
            counts[key] = count_sample(model, observation)
        return counts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coopmap.training.callbacks.model_facts.count_sample", count)
        yield


@pytest.fixture(autouse=True)
def _no_wandb_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
