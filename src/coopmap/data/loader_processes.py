"""Set-up of loader processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import torch
from threadpoolctl import threadpool_limits

from coopmap.data.memory import keep_freed_memory

GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
LOOK_SECONDS = 1.0
"""How often a loader process looks whether the main process is still there."""


def prepare_worker(worker: int) -> None:
    """Loader processes use one thread, keep freed memory, and outlive a stop signal to their group until the main
    process ends them.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's matrix products, which torch knows nothing of
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the main process says so, as it does when it exits, or is gone; what a batch system sends to all is
    ignored.

    PyTorch looks whether the main process is another than when the loader process was ready: one whose main process
    is killed before that would stay for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a loader process
    while parent.is_alive():
        received = signal.sigtimedwait([signal.SIGTERM], LOOK_SECONDS)
        if received is not None and received.si_pid == parent.pid:
            break
    os._exit(0)
