"""When an epoch and the run will have ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coopmap.config import Config
from coopmap.config.validations import validations


@dataclass(frozen=True)
class Pace:
    """What things take, in seconds.

    Attributes:
        batch: forward, backward and optimizer of a micro-batch.
        load: a batch in one loader process.
        loaders: loader processes of a rank; 0 = the training process loads itself.
        validation: a validation.
        accumulate: micro-batches of an optimizer step.
    """

    batch: float
    load: float
    loaders: int
    validation: float
    accumulate: int = 1

    @property
    def step(self) -> float:
        """An optimizer step: computing and loading overlap where there are loader processes."""
        each = max(self.batch, self.load / self.loaders) if self.loaders else self.batch + self.load
        return self.accumulate * each

    @property
    def waits_for_data(self) -> bool:
        """Whether loading takes longer than computing."""
        return self.loaders > 0 and self.load / self.loaders > self.batch


def forecast(pace: Pace, config: Config, done: int, now: datetime) -> str:
    """Ends of the current epoch and of the run, each with its validations.

    Args:
        pace: as measured.
        config: of the run.
        done: optimizer steps so far, of a run that goes on.
        now: when the next one begins.
    """
    total, per_epoch = config.total_steps, config.steps_per_epoch
    last = min(total, (done // per_epoch + 1) * per_epoch)
    epoch = (last - done) * pace.step + validations(config, done, last) * pace.validation
    run = (total - done) * pace.step + validations(config, done) * pace.validation
    text = f"expected end of the epoch {_when(now, epoch)}, of the run {_when(now, run)}, at {pace.step:.2g} s a step"
    return text + ("; it waits for data: more data.num_workers, or coopmap cache" if pace.waits_for_data else "")


def _when(now: datetime, seconds: float) -> str:
    end = now + timedelta(seconds=seconds)
    form = "%H:%M" if end.date() == now.date() else "%a %d %b %H:%M"
    hours = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
    return f"{end.strftime(form)} ({hours})"
