"""All validation figures of a run."""

from __future__ import annotations

from typing import Any

import lightning as L


class ValidationHistory(L.Callback):
    """Remembers the figures of every validation, across resumes.

    Attributes:
        entries: ``{"step": ..., "val/...": ...}``, in order.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add an entry; a validation that is not part of training counts only as the first."""
        if trainer.sanity_checking or (trainer.state.fn != "fit" and self.entries):
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.entries.append({"step": trainer.global_step, **figures})

    def state_dict(self) -> dict[str, Any]:
        return {"entries": self.entries}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entries = state_dict["entries"]
