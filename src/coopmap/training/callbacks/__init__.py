"""Callbacks of training."""

from coopmap.training.callbacks.description import Description
from coopmap.training.callbacks.history import ValidationHistory
from coopmap.training.callbacks.last_checkpoint import LastCheckpoint
from coopmap.training.callbacks.live import LivePictures
from coopmap.training.callbacks.memory import Memory
from coopmap.training.callbacks.model_facts import ModelFacts
from coopmap.training.callbacks.progress import ProgressLines, RunProgressBar, progress_callback
from coopmap.training.callbacks.stop_signal import StopOnSignal
from coopmap.training.callbacks.timing import StepTiming

__all__ = [
    "Description",
    "LastCheckpoint",
    "LivePictures",
    "Memory",
    "ModelFacts",
    "ProgressLines",
    "RunProgressBar",
    "StepTiming",
    "StopOnSignal",
    "ValidationHistory",
    "progress_callback",
]
