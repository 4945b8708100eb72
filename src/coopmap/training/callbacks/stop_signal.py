"""Graceful stop on SIGTERM and Ctrl-C."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

import lightning as L

log = logging.getLogger(__name__)


class StopOnSignal(L.Callback):
    """Lets the step in progress finish when SIGTERM or the first Ctrl-C arrives; a second Ctrl-C stops immediately.

    The handler only sets Lightning's own flag. Lightning agrees on it between ranks before the next step and raises
    ``SIGTERMException`` on all of them. (Its own handler starts a collective operation from within the handler, which
    can deadlock with one in progress.)
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            trainer._signal_connector.received_sigterm = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log.warning("%s: stopping after this step", signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, stop)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
