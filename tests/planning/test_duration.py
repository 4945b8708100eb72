"""Sizes of epochs and times of runs follow from the configuration."""

import pytest

from coopmap import load_config
from coopmap.config.plan import PlanConfig
from coopmap.planning.duration import Duration, Epoch, duration_of, epoch_of
from coopmap.planning.steps import StepCount

SETTINGS = ("machine=laptop", "preset=none", "data.root=/nowhere", "data.steps_per_epoch=100", "trainer.max_epochs=10")
STEPS = {
    agents: StepCount(4, 100, flops, 4 * flops, 0, 0, 0)
    for agents, flops in ((2, 10**12), (3, 10**12), (4, 2 * 10**12))
}


def planned(*overrides: str, ranks: int = 1, **asked: float) -> tuple[Epoch, Duration]:
    """With 2 to 4 agents in a sample."""
    config, plan = load_config([*SETTINGS, "data.max_views_per_gpu=8", *overrides]), PlanConfig(**asked)  # type: ignore[arg-type]
    epoch = epoch_of(config, plan, ranks)
    return epoch, duration_of(config, plan, ranks, STEPS, 0, epoch)


def test_numbers_of_agents_count_as_often_as_they_are_drawn() -> None:
    epoch, duration = planned("data.sampling.agents={2: 0.75, 4: 0.25}", tflops=1.0)
    assert epoch.samples == pytest.approx(100 * (0.75 * 4 + 0.25 * 2))
    assert duration.step_s == pytest.approx(0.75 * 4 + 0.25 * 8)


@pytest.mark.parametrize(
    ("override", "in_epoch", "number"),
    [
        ("trainer.check_val_every_n_epoch=5", 0.2, 2),
        ("trainer.val_check_interval=10", 10, 100),
        ("trainer.limit_val_batches=4", 1, 10),
        ("trainer.limit_val_batches=0", 0, 0),
    ],
)
def test_validations_take_their_time_as_often_as_the_run_validates(override: str, in_epoch: float, number: int) -> None:
    epoch, duration = planned("data.sampling.agents={2: 1}", override, step_s=1.0)
    extra = 2 if number else 0  # before the first step, and of the best checkpoint
    assert (duration.validations, duration.epochs) == (number + extra, 10)
    assert duration.epoch_h * 3600 == pytest.approx(100 + in_epoch * epoch.val_batches / 4)
    assert duration.run_h * 3600 == pytest.approx(1000 + (number + extra) * epoch.val_batches / 4)
    assert epoch.val_batches == {"trainer.limit_val_batches=4": 4, "trainer.limit_val_batches=0": 0}.get(override, 990)
