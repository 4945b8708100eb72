"""Time that a run will take, from work and rates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coopmap.config import Config, ConfigError
from coopmap.config.plan import PlanConfig
from coopmap.config.validations import validation_batches, validations, validations_per_epoch
from coopmap.planning.memory import strategy_name
from coopmap.planning.steps import StepCount

log = logging.getLogger(__name__)

TFLOPS = {"bf16-mixed": 25.0, "16-mixed": 25.0}
"""Arithmetic per second in training that is assumed for a precision: a third of an RTX 3090's 71 (35 in TF32)."""
TFLOPS_FLOAT32 = 12.0
HIDDEN = 0.6
"""Share of a step in which gradients can be on their way while others are computed."""
TRAFFIC = {"single": 0.0, "ddp": 2.0, "ddp_zero1": 3.0, "fsdp": 3.0}
"""How often a GPU sends or receives all parameters in a step: an all-reduce counts twice, a gathering once."""


@dataclass(frozen=True)
class Epoch:
    """Sizes of an epoch.

    Attributes:
        steps: optimizer steps.
        samples: that they draw, on average.
        val_batches: of the rank that has most; 0 = no validation.
        val_frames: in all, of which ``trainer.limit_val_batches`` may leave fewer.
        is_assumed: whether the number of validation frames is assumed, as the data is not at hand.
    """

    steps: int
    samples: float
    val_batches: int
    val_frames: int
    is_assumed: bool


@dataclass(frozen=True)
class Duration:
    """Times.

    Attributes:
        step_s: of an optimizer step.
        exchange_s: part of it in which a GPU waits for the others' gradients or parameters.
        validation_s: of one validation.
        validations: of the run, with that of the start and that of the best checkpoint.
        epoch_h, run_h: hours; of an epoch on average, as not all need validate.
        epochs: of the run.
        is_measured: whether the step's time was given.
    """

    step_s: float
    exchange_s: float
    validation_s: float
    validations: int
    epoch_h: float
    run_h: float
    epochs: float
    is_measured: bool


def epoch_of(config: Config, asked: PlanConfig, ranks: int) -> Epoch:
    """Sizes of an epoch, from the data if it is at hand."""
    views, accumulate = config.data.max_views_per_gpu, config.accumulate
    per_batch = _mean_of_steps(config, {number: views // number for number in config.data.agent_frequencies})
    counts = _agents_of_validation(config)
    is_assumed = counts is None
    if counts is None:
        counts = np.full(asked.val_frames, config.data.max_agents)
    batches = sum(
        -(-int((counts == number).sum()) // max(1, views // int(number))) for number in np.unique(counts).tolist()
    )
    return Epoch(
        steps=config.steps_per_epoch,
        samples=config.steps_per_epoch * accumulate * ranks * per_batch,
        val_batches=validation_batches(config, -(-batches // ranks)),
        val_frames=len(counts),
        is_assumed=is_assumed,
    )


def _mean_of_steps(config: Config, values: Mapping[int, float]) -> float:
    """Mean over training steps of what depends on the number of agents."""
    frequencies = config.data.agent_frequencies
    return float(np.average([values[number] for number in frequencies], weights=list(frequencies.values())))


def _agents_of_validation(config: Config) -> np.ndarray | None:
    """Number of agents in each frame of the validation; ``None`` if the data cannot be read."""
    if not config.data.root or not Path(config.data.root).is_dir():
        return None
    from coopmap.data.datamodule import build_split

    try:
        dataset = build_split(replace(config.data, cache_root=None), "val", config.seed, refuse_depth=False)
    except (ConfigError, OSError, ValueError) as error:
        log.warning("the validation split cannot be read: %s", str(error).splitlines()[0])
        return None
    numbers, limit = dataset.num_agents, config.data.max_val_frames
    if limit is not None and limit < len(numbers):
        numbers = numbers[np.linspace(0, len(numbers) - 1, limit).round().astype(int)]
    return np.asarray(numbers)


def duration_of(
    config: Config,
    asked: PlanConfig,
    ranks: int,
    steps: Mapping[int, StepCount],
    trained_bytes: int,
    epoch: Epoch,
) -> Duration:
    """Times of a run.

    Args:
        config: of the run.
        asked: rates, or the measured time of a step.
        ranks: number of GPUs.
        steps: of each number of agents that training draws.
        trained_bytes: of all parameters that are trained.
        epoch: its sizes.
    """
    accumulate = config.accumulate
    rate = 1e12 * (asked.tflops or TFLOPS.get(str(config.trainer.precision), TFLOPS_FLOAT32))
    computing = accumulate * _mean_of_steps(config, {number: step.flops for number, step in steps.items()}) / rate
    strategy = strategy_name(config, ranks)
    shares = TRAFFIC[strategy] * (ranks - 1) / ranks
    if config.strategy.compress_gradients and strategy in ("ddp", "ddp_zero1"):
        shares -= (ranks - 1) / ranks  # half of an all-reduce
    sending = shares * trained_bytes / (1e9 * asked.bus_gb_s)
    waiting = max(0.0, sending - HIDDEN * computing)
    step_s = asked.step_s or computing + waiting
    share_forward = _mean_of_steps(config, {number: step.forward_flops / step.flops for number, step in steps.items()})
    validation_s = epoch.val_batches * share_forward * step_s / accumulate
    number = validations(config)
    return Duration(
        step_s=step_s,
        exchange_s=waiting,
        validation_s=validation_s,
        validations=number,
        epoch_h=(epoch.steps * step_s + validations_per_epoch(config) * validation_s) / 3600,
        run_h=(config.total_steps * step_s + number * validation_s) / 3600,
        epochs=config.total_steps / config.steps_per_epoch,
        is_measured=asked.step_s is not None,
    )
