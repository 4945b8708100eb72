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
    every = config.trainer.check_val_every_n_epoch or 1
    of_epoch = _validated_steps(config, config.steps_per_epoch)
    found, is_due = epochs // every * len(of_epoch), epochs % every == 0 and config.steps_per_epoch in of_epoch
    if rest:
        validated = _validated_steps(config, rest) if (epochs + 1) % every == 0 else set()
        found, is_due = found + len(validated), rest in validated
    return found + (steps >= config.total_steps and not is_due)


def _validated_steps(config: Config, steps: int) -> set[int]:
    """Of the first optimizer steps of an epoch that validates those after which it does; a step is ended first."""
    interval, batches = config.trainer.val_check_interval, config.batches_per_epoch
    between = interval if isinstance(interval, int) else max(1, limited(batches, interval))
    done = min(steps * config.accumulate, batches)
    return {-(-due // config.accumulate) for due in range(between, done + 1, between)}
