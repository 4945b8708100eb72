"""Every variant that is compared trains: 4n camera views, with and without a reference, panoramas, and each way to fuse
cameras."""

from collections.abc import Callable
from statistics import mean

import pytest

from coopmap import load_config
from coopmap.benchmarks.fusion import VARIANTS
from coopmap.runs.metrics_file import read_metrics
from coopmap.train import train

SMALL_CAMERAS = ("data.cameras.height=28", "data.cameras.width=42")
STEPS, AT_EACH_END = 250, 20
WITHOUT_REFERENCE = "experiment=four_camera", "loss=relative", "model.info_sharing.mark_reference=false"
CHOICES = [*((f"experiment={name}",) for name in VARIANTS), WITHOUT_REFERENCE]


@pytest.mark.parametrize("chosen", CHOICES, ids=",".join)
def test_takes_steps(chosen: tuple[str, ...], overrides: Callable[..., list[str]]) -> None:
    config = load_config(overrides(*chosen, "debug=fast", *SMALL_CAMERAS))
    result = train(config)
    assert result.trainer.global_step == 2
    assert result.trainer.callback_metrics["train/loss"].isfinite()
    assert result.trainer.callback_metrics["val/loss"].isfinite()
    optimizer = result.trainer.optimizers[0]
    for group in optimizer.param_groups:  # one for each part of the model
        largest = max(optimizer.state[parameter]["exp_avg"].abs().max() for parameter in group["params"])
        assert 0 < largest < float("inf"), group["name"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", VARIANTS)
def test_learns(experiment: str, overrides: Callable[..., list[str]]) -> None:
    """On two frames of the town, the loss of the last steps is well below that of the first ones."""
    chosen = overrides(
        f"experiment={experiment}",
        *SMALL_CAMERAS,
        f"data.steps_per_epoch={STEPS}",
        "trainer.max_epochs=1",
        "optim.lr=0.003",
        "callbacks.validate_at_start=false",
    )
    result = train(load_config(chosen))
    losses = [row["train/loss"] for row in read_metrics(result.run.path / "metrics.csv") if "train/loss" in row]
    assert len(losses) == STEPS
    assert mean(losses[-AT_EACH_END:]) < 0.75 * mean(losses[:AT_EACH_END])
