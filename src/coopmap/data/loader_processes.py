"""Set-up of loader processes."""

from __future__ import annotations

import os
import signal
import threading

import torch
from threadpoolctl import threadpool_limits

from coopmap.data.memory import keep_freed_memory

GROUP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def prepare_worker(worker: int) -> None:
    """Loader processes use one thread, keep freed memory, and outlive a stop signal to their group until the main
    process ends them.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's matrix products, which torch knows nothing of
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the main process says so, as it does when it exits; what a batch system sends to all is ignored."""
    while True:
        if signal.sigwaitinfo([signal.SIGTERM]).si_pid == os.getppid():
            os._exit(0)
