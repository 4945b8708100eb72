"""Callbacks of training."""

from coopmap.training.callbacks.best_checkpoint import BestCheckpoint
from coopmap.training.callbacks.description import Description
from coopmap.training.callbacks.history import ValidationHistory
from coopmap.training.callbacks.last_checkpoint import LastCheckpoint
from coopmap.training.callbacks.live import LivePictures
from coopmap.training.callbacks.memory import Memory
from coopmap.training.callbacks.model_facts import ModelFacts
from coopmap.training.callbacks.progress import ProgressLines, RunProgressBar, progress_callback
from coopmap.training.callbacks.skipped_files import SkippedFiles
from coopmap.training.callbacks.skipped_steps import SkippedSteps
from coopmap.training.callbacks.stop_signal import LoaderError, NoSignals, StopOnSignal
from coopmap.training.callbacks.timing import StepTiming

__all__ = [
    "BestCheckpoint",
    "Description",
    "LastCheckpoint",
    "LivePictures",
    "LoaderError",
    "Memory",
    "ModelFacts",
    "NoSignals",
    "ProgressLines",
    "RunProgressBar",
    "SkippedFiles",
    "SkippedSteps",
    "StepTiming",
    "StopOnSignal",
    "ValidationHistory",
    "progress_callback",
]
