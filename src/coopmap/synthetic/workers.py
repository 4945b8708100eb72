"""A function on many inputs, in processes that depend on nothing in the calling program and never outlive it.

Common process pools fail one or the other requirement. ``multiprocessing``'s spawn runs the caller's script again in
every worker, which fails in a script without ``if __name__ == "__main__"``, and fork breaks callers that have
threads. joblib's loky has neither flaw, but its workers live on for minutes after the program was killed.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

SOURCE = Path(__file__).parents[2]
"""Folder that workers import ``coopmap`` from."""


class WorkerError(RuntimeError):
    """A worker ended before its work was done."""


@dataclass(frozen=True)
class _Failed:
    """What a worker sends in place of a result that a file kept it from."""

    error: OSError


def num_cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(function: Callable[[T], R], inputs: Sequence[T], num_workers: int) -> Iterator[R]:
    """Results in the order in which they become ready.

    Args:
        function: importable by name, or a ``functools.partial`` of one.
        inputs: can be pickled.
        num_workers: processes; they exit with the iteration, however it ends.

    Raises:
        OSError: the function raised it, as on a full disk.
        WorkerError: the function raised something else (the worker prints the traceback), or its process was killed.
    """
    workers: dict[Connection, subprocess.Popen[bytes]] = {}
    remaining = iter(inputs)
    try:
        for _, item in zip(range(num_workers), remaining, strict=False):  # in this order: zip drops what it took last
            connection, process = _start()
            workers[connection] = process
            connection.send(function)
            connection.send(item)
        busy = set(workers)
        while busy:
            for connection in cast("list[Connection]", wait(busy)):
                yield _receive(connection, workers[connection])
                try:
                    connection.send(next(remaining))
                except StopIteration:
                    busy.remove(connection)
    finally:
        for connection, process in workers.items():
            process.kill()
            process.wait()
            connection.close()


def _start() -> tuple[Connection, subprocess.Popen[bytes]]:
    """A worker and the connection to it."""
    ours, theirs = Pipe()
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", f"from {__name__} import work; work({theirs.fileno()})"]
    alone = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}  # the workers themselves fill the cores
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env={**os.environ, **alone}, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    return ours, process


def _receive(connection: Connection, process: subprocess.Popen[bytes]) -> Any:
    try:
        result = connection.recv()
    except EOFError:
        status = process.wait()
        hint = ": out of memory? Fewer workers need less" if status == -signal.SIGKILL else ""
        raise WorkerError(f"a worker process ended with status {status}{hint}") from None
    if isinstance(result, _Failed):
        raise result.error
    return result


def work(line: int) -> None:
    """Work until the other end of the connection closes, which happens whenever the program ends.

    Args:
        line: file descriptor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the program decides
    connection = Connection(line)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                received.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # in the middle of whatever the main thread does

    threading.Thread(target=listen, daemon=True).start()
    function = received.get()
    while True:
        try:
            result = function(received.get())
        except OSError as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            result = _Failed(error)
        connection.send(result)
