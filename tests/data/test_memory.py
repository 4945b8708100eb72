"""Loader processes tell glibc to keep freed memory, and ask nothing of other C libraries."""

import ctypes

import pytest

from coopmap.data.loader_processes import prepare_worker
from coopmap.data.memory import keep_freed_memory


class Library:
    """A C library that notes what is set."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1


def test_large_arrays_come_from_the_heap_and_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert library.options[-3] >= 1 << 30  # M_MMAP_THRESHOLD of malloc.h
    assert library.options[-1] >= 1 << 30  # M_TRIM_THRESHOLD


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()


def test_loader_processes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    room = "coopmap.data.loader_processes"
    monkeypatch.setattr(f"{room}.threadpool_limits", lambda limit: None)
    monkeypatch.setattr(f"{room}.torch.set_num_threads", lambda number: None)
    monkeypatch.setattr(f"{room}.signal.signal", lambda number, handler: None)
    monkeypatch.setattr(f"{room}.signal.pthread_sigmask", lambda how, mask: None)
    monkeypatch.setattr(f"{room}.threading.Thread.start", lambda thread: None)
    prepare_worker(0)
    assert library.options
