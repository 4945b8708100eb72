"""Stop signals: what they set off, and when."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

log = logging.getLogger(__name__)

STOPPED, INTERRUPTED = 143, 130
"""Exit status after a stop signal, and after a Ctrl-C that nothing was waited for after."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Stopped(SystemExit):
    """Ends the program after a stop signal.

    Attributes:
        reason: a line for people.
        at_step_boundary: all ranks agreed, between two optimizer steps.
    """

    def __init__(self, reason: str, code: int = STOPPED, at_step_boundary: bool = False) -> None:
        super().__init__(code)
        self.reason, self.at_step_boundary = reason, at_step_boundary


class StopSignals:
    """Receives SIGTERM, Ctrl-C, SIGUSR1 and SIGHUP.

    While :attr:`deferred`, a signal sets :attr:`received`, for the program to look at between two steps; otherwise it
    ends the program on the spot. A second Ctrl-C always does, even while the program waits for another process.

    Attributes:
        phase: what a signal interrupts, in words.
        deferred: whether the program looks at :attr:`received` by itself.
        received: name of the first signal.
        children: processes to end with this one.
    """

    def __init__(self) -> None:
        self.phase = "before the first step; nothing was trained"
        self.deferred = False
        self.received: str | None = None
        self.children: Sequence[subprocess.Popen] = ()
        self._interrupts = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two instructions of Python. Prints nothing: it may interrupt a print."""
        name = signal.Signals(number).name
        self.received = self.received or name
        if not self.deferred:
            raise Stopped(f"{name}: stopped {self.phase}", INTERRUPTED if number == signal.SIGINT else STOPPED)

    def watch(self, pipe: int) -> None:
        """In a thread of its own, for what cannot wait until the main thread runs Python again."""
        while numbers := os.read(pipe, 1):
            number = numbers[0]
            self._interrupts += number == signal.SIGINT
            if self._interrupts > 1 and number == signal.SIGINT:
                self._end_at_once()
            elif number in SIGNALS and self.deferred:
                log.warning("%s: stopping after this step", signal.Signals(number).name)

    def _end_at_once(self) -> None:
        for child in self.children:
            with suppress(OSError):
                child.kill()
        with suppress(Exception):
            print("second Ctrl-C: stopped at once; the last checkpoint stays", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)


_current: StopSignals | None = None


def current() -> StopSignals:
    """The one that listens; a deaf one if none does."""
    return _current if _current is not None else StopSignals()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Listen while the block runs. Within another such block, and in another thread than the main one, nothing changes.

    A signal that the program was started to ignore (``nohup``) stays ignored.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield current()
        return
    _current = signals = StopSignals()
    pipe, written = os.pipe()
    os.set_blocking(written, False)
    wakeup_before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    threading.Thread(target=signals.watch, args=(pipe,), daemon=True, name="stop-signals").start()
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in heard}
    try:
        yield signals
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(written)  # ends the thread


def _be_deaf() -> None:
    """In a forked process: its signals are not its parent's."""
    global _current
    if _current is None:
        return
    _current = None
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


os.register_at_fork(after_in_child=_be_deaf)
