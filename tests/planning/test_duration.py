"""Sizes of epochs and times of runs follow from the configuration."""

import pytest

from coopmap import load_config
from coopmap.config.plan import PlanConfig
from coopmap.planning.duration import Duration, Epoch, duration_of, epoch_of
from coopmap.planning.steps import StepCount

SETTINGS = ("machine=laptop", "preset=none", "data.root=/nowhere", "data.steps_per_epoch=100", "trainer.max_epochs=10")
STEPS = {agents: StepCount(4, 100, flops, 4 * flops, 0, 0, 0) for agents, flops in ((2, 10**12), (4, 2 * 10**12))}


def planned(*overrides: str, ranks: int = 1, **asked: float) -> tuple[Epoch, Duration]:
    """With 2 or 4 agents in a sample: 4 or 2 samples in a batch."""
    config, plan = load_config([*SETTINGS, "data.max_views_per_gpu=8", *overrides]), PlanConfig(**asked)  # type: ignore[arg-type]
    epoch = epoch_of(config, plan, ranks)
    return epoch, duration_of(config, plan, ranks, STEPS, 0, epoch)


def test_numbers_of_agents_count_as_often_as_they_are_drawn() -> None:
    epoch, duration = planned("data.sampling.agents={2: 0.75, 4: 0.25}", tflops=1.0)
    assert epoch.samples == pytest.approx(100 * (0.75 * 4 + 0.25 * 2))
    assert duration.step_s == pytest.approx(0.75 * 4 + 0.25 * 8)
