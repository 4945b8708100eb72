"""All validation metrics of a run."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from coopmap.runs.summary import WHEN_WORSE

log = logging.getLogger(__name__)

SHOWN = (
    ("pose_trans_avg", "val/pose_trans_avg"),
    ("translation (m)", "val/trans_m_mean"),
    ("training mean (m)", "val/baseline_trans_m_mean"),
    ("rotation (deg)", "val/rot_deg_mean"),
    ("medians of co-visible pairs (m)", "val/covisible_trans_m_median"),
    ("(deg)", "val/covisible_rot_deg_median"),
)
POSE, MATCHES = "val/pose_trans_avg", "val/match_accuracy_mean"
ZERO_SHOT = ("pose_trans_avg", "trans_m_mean", "rot_deg_mean")
"""Metrics whose value before training W&B gets again with every validation, to be drawn as a level."""


class ValidationHistory(L.Callback):
    """Remembers the metrics of every validation, across resumes, and logs the main ones.

    Attributes:
        entries: ``{"step": ..., "val/...": ...}``, in order.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add an entry; a validation outside training counts only as the first."""
        if trainer.sanity_checking or (trainer.state.fn != "fit" and self.entries):
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.entries.append({"step": trainer.global_step, **figures})
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and (levels := self.zero_shot):
                logger.log_metrics(levels, trainer.global_step)
        if trainer.is_global_zero:
            shown = [f"{label} {figures[name]:.4g}" for label, name in SHOWN if name in figures]
            log.info("validation at step %d: %s", trainer.global_step, "  ".join(shown))
            self._warn_if_worse_than_before_training()

    def _warn_if_worse_than_before_training(self) -> None:
        """Once it was so twice in a row, and no more matches are right than before: poses follow these."""
        before, after = self.entries[0], self.entries[1:]
        values = [entry[POSE] for entry in after if POSE in entry][-2:]
        if before["step"] != 0 or len(values) < 2 or not min(values) > before.get(POSE, math.inf):
            return
        if after[-1].get(MATCHES, 0.0) > before.get(MATCHES, 0.0):
            return
        log.warning(
            "pose_trans_avg was %.4g before training, and %.4g and %.4g at the last two validations: this run makes "
            "the model worse. If it goes on, %s",
            before[POSE],
            *values,
            WHEN_WORSE,
        )

    @property
    def zero_shot(self) -> dict[str, float]:
        """Metrics before the first step, as ``zero_shot/NAME``; empty if they were not measured."""
        first = self.entries[0]
        if first["step"] != 0:
            return {}
        return {f"zero_shot/{name}": first[f"val/{name}"] for name in ZERO_SHOT if f"val/{name}" in first}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"entries": self.entries}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of the run that is resumed."""
        self.entries = state_dict["entries"]
