import os
import signal
import subprocess
import sys
import threading

import pytest

from coopmap.runs.signals import Stopped, current, stop_signals

BLOCKED = """
import ctypes, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
from coopmap.runs.signals import stop_signals
with stop_signals() as signals:
    signals.deferred = True
    os.kill(os.getpid(), signal.SIGINT)
    if os.fork() == 0:  # as a loader process: what it hears is not its parent's
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    os.wait()
    print(signals.received, flush=True)
    while True:
        ctypes.CDLL(None).sleep(30)
"""


def test_a_second_ctrl_c_ends_what_waits_with_a_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "SIGINT\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "second Ctrl-C: stopped at once; the last checkpoint stays"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)],
)
def test_a_signal_before_there_is_anything_to_save_ends_on_the_spot(number: signal.Signals, code: int) -> None:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, default)
    with stop_signals(), pytest.raises(Stopped) as caught:
        os.kill(os.getpid(), number)
    assert (caught.value.code, caught.value.reason) == (
        code,
        f"{number.name}: stopped before the first step; nothing was trained",
    )
    assert signal.signal(number, before) is default


def test_a_deferred_signal_waits_and_an_inner_block_listens_to_the_outer() -> None:
    with stop_signals() as signals:
        signals.deferred = True
        with stop_signals() as inner:
            assert inner is signals is current()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received == "SIGTERM"
    assert current().received is None


def test_what_the_program_was_started_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_listen_to_nothing() -> None:
    heard = []

    def listen() -> None:
        with stop_signals() as signals:
            heard.append(signals.received)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [None]
