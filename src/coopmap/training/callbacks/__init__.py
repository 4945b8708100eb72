"""Callbacks of training."""

from coopmap.training.callbacks.description import Description
from coopmap.training.callbacks.history import ValidationHistory
from coopmap.training.callbacks.last_checkpoint import LastCheckpoint
from coopmap.training.callbacks.model_facts import ModelFacts
from coopmap.training.callbacks.progress import ProgressLines, RunProgressBar, progress_callback
from coopmap.training.callbacks.skipped_files import SkippedFiles
from coopmap.training.callbacks.stop_signal import StopOnSignal
from coopmap.training.callbacks.timing import StepTiming

__all__ = [
    "Description",
    "LastCheckpoint",
    "ModelFacts",
    "ProgressLines",
    "RunProgressBar",
    "SkippedFiles",
    "StepTiming",
    "StopOnSignal",
    "ValidationHistory",
    "progress_callback",
]
