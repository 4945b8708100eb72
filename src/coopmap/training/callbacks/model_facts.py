"""Cost of a run's model: ``model.json`` in the run folder, and the run's clock."""

from __future__ import annotations

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from coopmap.models.counting import count_parameters, count_sample
from coopmap.report.files import write_json
from coopmap.types import Observation

log = logging.getLogger(__name__)


class ModelFacts(L.Callback):
    """Writes ``model.json``: parameters, tokens and FLOPs per sample, peak memory; logs the clock.

    Tokens and FLOPs are those of the first validation sample with the most agents, counted once at the start on
    fake tensors. Every validation logs ``time/steps``, optimizer steps so far, and ``time/wall_s``, seconds of training
    so far, validations included, time between a stop and a resume excluded.

    Args:
        file: to write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.facts: dict[str, Any] = {}
        self._earlier_seconds = 0.0
        self._started: float | None = None
        self._ended = False
        self._rss_before = peak_rss_bytes()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Count, whether or not ranks share the model out already."""
        if trainer.is_global_zero and stage == "fit":
            self.facts = self._count(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        if trainer.is_global_zero:
            if pl_module.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(pl_module.device)
            self._write(trainer)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._earlier_seconds + (0.0 if self._started is None else time.monotonic() - self._started)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the clock."""
        if not self._ended and not trainer.sanity_checking:
            pl_module.log_dict({"time/steps": float(trainer.global_step), "time/wall_s": self.seconds})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the peak memory so far; a run may be killed."""
        if self._started is not None and not self._ended and trainer.is_global_zero:
            self.facts |= peak_memory(pl_module.device, self._rss_before)
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Training is over: stop the clock."""
        self.on_validation_end(trainer, pl_module)
        self._ended = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the clock go on."""
        self._earlier_seconds = state_dict["seconds"]

    def _count(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        model = pl_module.countable
        assert isinstance(model, nn.Module)
        facts = count_parameters(model)
        if trainer.fast_dev_run or (observation := largest_observation(trainer.datamodule)) is None:  # type: ignore[attr-defined]
            return facts
        observation = pl_module.with_inputs(observation, 0)  # type: ignore[operator]
        try:
            return facts | count_sample(model, observation)
        except Exception as error:  # a failed count must not end a run
            log.warning("tokens and FLOPs per sample are unknown: %s: %s", type(error).__name__, error)
            return facts

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        write_json(self.facts, self.file)


def largest_observation(datamodule: Any) -> Observation | None:
    """The first validation sample with the most agents, as a batch of one; ``None`` if none can be read."""
    dataset = datamodule.dataset("val")
    for position in (-dataset.num_agents).argsort(kind="stable"):
        sample = dataset[int(position)]
        if hasattr(sample, "observation"):
            return sample.observation.map(lambda tensor: tensor[None])
    return None


def peak_memory(device: torch.device, rss_before: int) -> dict[str, int]:
    """Peak of allocated GPU memory, or of the process's resident memory.

    Args:
        device: of the model.
        rss_before: resident peak before the run; the process may have run other jobs of a sweep, and their peak is
            not reported.
    """
    if device.type == "cuda":
        return {"cuda_peak_allocated_bytes": torch.cuda.max_memory_allocated(device)}
    peak = peak_rss_bytes()
    return {"process_peak_rss_bytes": peak} if peak > rss_before else {}


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
