"""What accompanies training."""

from coopmap.callbacks.description import Description
from coopmap.callbacks.history import ValidationHistory
from coopmap.callbacks.last_checkpoint import LastCheckpoint
from coopmap.callbacks.model_facts import ModelFacts
from coopmap.callbacks.progress import ProgressLines, progress_callback
from coopmap.callbacks.stop_signal import StopOnSignal
from coopmap.callbacks.timing import StepTiming

__all__ = [
    "Description",
    "LastCheckpoint",
    "ModelFacts",
    "ProgressLines",
    "StepTiming",
    "StopOnSignal",
    "ValidationHistory",
    "progress_callback",
]
