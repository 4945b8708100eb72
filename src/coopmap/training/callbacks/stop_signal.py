"""Graceful stop on a signal, after a time or the death of a loader process: all ranks leave at the same step."""

from __future__ import annotations

import logging
import signal
import threading
import time
import traceback
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from coopmap.runs.signals import Stopped, StopSignals, current
from coopmap.training.callbacks.last_checkpoint import LastCheckpoint

log = logging.getLogger(__name__)

LOADER_DIED = "DataLoader worker"
"""How torch's messages about the death of a loader process begin."""
GO_ON, TIME_IS_UP, SIGNAL, LOADER = range(4)
"""What ranks agree on: the largest is done."""


class LoaderError(RuntimeError):
    """A loader process was killed or ran out of memory.

    Attributes:
        at_step_boundary: all ranks agreed, between two optimizer steps.
    """

    at_step_boundary = True


class StopOnSignal(L.Callback):
    """Has all ranks stop between the same two steps when any of them received a signal, lost a loader process or has
    trained for long enough.

    Ranks agree once per batch, when it has been fetched, and once per validation, before its figures are put together:
    the largest of their states, on the CPU. That takes a tenth of a millisecond, waits for no GPU, and happens at the
    same places on all ranks whatever arrives when. A rank that has been stopped in its share of a validation goes to
    that place early; but where ranks make their passes together (``strategy=fsdp``), they agree before each of them.
    The time ends no validation, and every start makes a step: a run that is always continued ends.

    Lightning's own handling is off: its handler starts a collective operation, which can deadlock with one in progress,
    and ranks leave the loop on flags of their own.

    Args:
        seconds: time to train in this start, ``trainer.max_time``.
        last: learns in the same agreement whether a checkpoint is due by time.
    """

    def __init__(self, seconds: float | None = None, last: LastCheckpoint | None = None) -> None:
        self.seconds, self.last = seconds, last
        self._began_at, self._first_step = 0.0, 0
        self._agreed = GO_ON
        self._signals: StopSignals = current()
        self._group: Any = None
        self._loader_error: str | None = None
        self._is_measuring = self._has_agreed = self._is_fetching = False
        self._sigchld_before: Any = None

    # Where a signal waits until ranks agree

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Several ranks agree on every stop; a single process stops on the spot while it does not train."""
        self._signals.children = getattr(trainer.strategy.launcher, "procs", ())
        if trainer.world_size > 1 and self._group is None:
            self._group = torch.distributed.new_group(backend="gloo")
        self._signals.deferred = trainer.world_size > 1
        self._hear_of_loaders()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on there is a state to save."""
        self._signals.deferred, self._is_fetching = True, True
        self._began_at, self._first_step = time.monotonic(), trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Agree; stop if this is between two optimizer steps."""
        self._is_fetching = False
        may_stop = batch_idx % trainer.accumulate_grad_batches == 0
        if self._agree(may_stop, may_stop and self._time_is_up(trainer)):
            _take_back_batch(trainer)
            self._stop(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """The next batch is fetched, unless a validation comes first."""
        self._is_fetching = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All is trained and saved; what is left can be done again."""
        self._is_fetching = False
        self._signals.phase = "when training was complete; resume=auto measures the best checkpoint again"
        self._signals.deferred = trainer.world_size > 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """One agreement is due."""
        self._is_measuring, self._has_agreed, self._is_fetching = not trainer.sanity_checking, False, False

    def on_validation_batch_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Agree where the others could not make the next pass alone."""
        if self._is_measuring and isinstance(trainer.strategy, ModelParallelStrategy) and self._agree():
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Agree early if there is something to agree on."""
        is_alone = not isinstance(trainer.strategy, ModelParallelStrategy)
        has_news = self._signals.received or self._loader_error
        if is_alone and self._is_measuring and not self._has_agreed and has_news:
            self._agree_in_validation(trainer)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Agree at the latest here."""
        if self._is_measuring and not self._has_agreed:
            self._agree_in_validation(trainer)
        self._is_measuring = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Within training, the next batch is fetched."""
        self._is_fetching = trainer.state.fn == "fit" and not trainer.sanity_checking

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Have the other ranks leave too if a loader process died; they wait at the place of agreement."""
        _stop_observing_children()
        if isinstance(exception, Stopped | LoaderError) or not is_loader_failure(exception):
            return
        self._loader_error = self._loader_error or str(exception) or type(exception).__name__
        if self._is_fetching or (self._is_measuring and not self._has_agreed):
            self._agree()
            exception.at_step_boundary = True  # type: ignore[attr-defined]

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Nothing is measured any more."""
        self.close()
        self._is_measuring = False

    def close(self) -> None:
        """Leave the signals of the system as they were."""
        if self._sigchld_before is not None:
            signal.signal(signal.SIGCHLD, self._sigchld_before)
            self._sigchld_before = None

    # Agreement

    def _agree(self, may_stop: bool = True, time_is_up: bool = False) -> bool:
        """Whether any rank has to stop; the ranks call this at the same places."""
        state = TIME_IS_UP if time_is_up else GO_ON
        if may_stop and self._signals.received is not None:
            state = SIGNAL
        is_late = self.last is not None and self.last.is_late
        largest = torch.tensor([LOADER if self._loader_error else state, int(is_late)])
        if self._group is not None:
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=self._group)
        self._agreed, is_due = largest.tolist()
        if self.last is not None:
            self.last.is_due = bool(is_due)
        return self._agreed > GO_ON

    def _time_is_up(self, trainer: L.Trainer) -> bool:
        has_trained = trainer.global_step > self._first_step
        return self.seconds is not None and has_trained and time.monotonic() - self._began_at >= self.seconds

    def _agree_in_validation(self, trainer: L.Trainer) -> None:
        self._has_agreed = True
        if self._agree():
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._loader_error:
            raise LoaderError(explained(self._loader_error))
        if self._agreed == TIME_IS_UP:
            steps = f"{trainer.global_step} of {trainer.estimated_stepping_batches} steps"
            log.warning("trainer.max_time: stopping after %s", steps)
            reason = f"stopped by trainer.max_time after {steps}; the same command with resume=auto continues"
            raise Stopped(reason, at_step_boundary=True)
        if trainer.state.fn == "fit":
            raise Stopped("stopped on a signal; the same command with resume=auto continues", at_step_boundary=True)
        raise Stopped(f"{self._signals.received or 'a signal to another rank'}: stopped {self._signals.phase}")

    # Deaths of loader processes

    def _hear_of_loaders(self) -> None:
        """Note what torch raises from its handler, at any instruction: in the middle of an optimizer step, say."""
        from torch.utils.data._utils import signal_handling

        if self._sigchld_before is not None:
            return
        signal_handling._set_SIGCHLD_handler()
        before = signal.getsignal(signal.SIGCHLD)
        if not callable(before):
            return

        def note(number: int, frame: FrameType | None) -> None:
            try:
                before(number, frame)
            except RuntimeError as error:
                self._loader_error = self._loader_error or str(error)

        try:
            signal.signal(signal.SIGCHLD, note)
        except ValueError:  # not in the main thread
            return
        self._sigchld_before = before


def is_loader_failure(exception: BaseException) -> bool:
    """Whether a loader process was killed or had no memory left."""
    if isinstance(exception, MemoryError):
        return LOADER_DIED in str(exception)
    if isinstance(exception, RuntimeError):  # what a living process raises begins with "Caught RuntimeError in"
        return str(exception).startswith(LOADER_DIED)
    return _is_broken_connection(exception)


def _is_broken_connection(exception: BaseException) -> bool:
    """Whether a batch's memory could not be had from the process that made it, before its death was noticed."""
    if not isinstance(exception, ConnectionError | EOFError | FileNotFoundError):
        return False
    frames = list(traceback.walk_tb(exception.__traceback__))
    modules = [frame.f_globals.get("__name__", "") for frame, _ in frames]
    # What a loader process raises itself, about a file say, is raised again elsewhere.
    return bool(modules) and modules[-1].startswith("multiprocessing.") and "torch.utils.data.dataloader" in modules


def explained(message: str) -> str:
    """A death of a loader process in one line."""
    line = message.strip().splitlines()[0].rstrip(". ")
    if LOADER_DIED not in line:
        line = f"{LOADER_DIED} ended unexpectedly ({line})"
    return (
        f"{line}: out of memory? Fewer data.num_workers need less (the kernel's log, dmesg, names what it killed); "
        "the last step is saved, and the same command with resume=auto continues"
    )


def _take_back_batch(trainer: L.Trainer) -> None:
    """Count as if the batch that was just fetched, and others of an unfinished optimizer step, had not been."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    unfinished = progress.current.completed % trainer.accumulate_grad_batches
    for counters in (progress.total, progress.current):
        done = counters.completed - unfinished
        counters.load_state_dict(dict.fromkeys(("ready", "started", "processed", "completed"), done))


class NoSignals(_SignalConnector):
    """In place of Lightning's: signals are :class:`StopOnSignal`'s."""

    def register_signal_handlers(self) -> None:
        """Register none."""


def _stop_observing_children() -> None:
    """Lightning kills this process as soon as another rank has ended, with a checkpoint half written."""
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._finished = True  # type: ignore[attr-defined]
