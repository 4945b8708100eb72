"""How often a run validates, and on how much."""

from __future__ import annotations

from coopmap.config.schema import Config
from coopmap.config.trainer import limited


def validations(config: Config, done: int = 0, until: int | None = None) -> int:
    """Validations that a run still makes.

    Args:
        config: of the run.
        done: optimizer steps so far; 0 = before a validation at the start, if there is one.
        until: count those up to this optimizer step; ``None`` = to the end, and that of the best checkpoint.
    """
    if config.trainer.limit_val_batches == 0:
        return 0
    passed = _passed(config, config.total_steps if until is None else until)
    at_start = done == 0 and config.callbacks.validate_at_start
    best = until is None and passed > 0
    return at_start + passed - _passed(config, done) + best


def validations_per_epoch(config: Config) -> float:
    """Mean number while the run trains."""
    every = config.trainer.check_val_every_n_epoch or 1
    period = every * config.steps_per_epoch
    return validations(config, period, 2 * period) / every


def validation_batches(config: Config, batches: int) -> int:
    """Of so many batches of a rank those that a validation takes."""
    return limited(batches, config.trainer.limit_val_batches)


def _passed(config: Config, steps: int) -> int:
    """Validations between the first optimizer steps, so many; the last step of a run has one in any case."""
    epochs, rest = divmod(steps, config.steps_per_epoch)
    every, between = config.trainer.check_val_every_n_epoch or 1, _batches_between(config)
    of_epoch, left = divmod(config.batches_per_epoch, between)
    found, is_due = epochs // every * of_epoch, epochs % every == 0 and left == 0
    if rest:
        validates_now = (epochs + 1) % every == 0
        passed, left = divmod(rest * config.accumulate, between)
        found, is_due = found + validates_now * passed, validates_now and left == 0
    return found + (steps >= config.total_steps and not is_due)


def _batches_between(config: Config) -> int:
    """Training batches from one validation to the next, within an epoch that validates."""
    interval = config.trainer.val_check_interval
    if isinstance(interval, int):
        return interval
    return max(1, limited(config.batches_per_epoch, interval))
