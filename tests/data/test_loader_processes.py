"""Loader processes end with the process that they load for."""

import os
import signal
import subprocess
import sys
import time

import pytest

from coopmap.data.loader_processes import LOOK_SECONDS

MAIN = """
import os, signal, sys, time
from torch.utils.data import DataLoader
from coopmap.data.loader_processes import prepare_worker

def prepare_late(worker):
    print(os.getpid(), flush=True)
    while os.getppid() == main:  # it is killed before PyTorch looks whose process this is
        time.sleep(0.01)
    prepare_worker(worker)

main = os.getpid()
loader = iter(DataLoader(range(8), batch_size=None, num_workers=2, worker_init_fn=prepare_late))
time.sleep(600)
"""


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="needs POSIX signals that can be waited for")
def test_they_end_with_a_main_process_that_is_killed_while_they_start() -> None:
    main = subprocess.Popen([sys.executable, "-c", MAIN], stdout=subprocess.PIPE, text=True)
    assert main.stdout is not None
    workers = [int(main.stdout.readline()) for _ in range(2)]
    main.kill()
    main.wait()
    try:
        for _ in range(200):  # a loaded machine takes its time
            if not any(map(is_there, workers)):
                break
            time.sleep(LOOK_SECONDS / 2)
        assert not any(map(is_there, workers))
    finally:
        for worker in filter(is_there, workers):
            os.kill(worker, signal.SIGKILL)
