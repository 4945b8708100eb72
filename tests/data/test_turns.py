"""Of several processes that want the same file one makes it."""

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from coopmap.data.turns import first_come

FORK = multiprocessing.get_context("fork")


def look(path: Path, made: Queue, seconds: float, writes: bool) -> None:
    """What a process does that needs a file."""
    with first_come(path):
        if not path.exists():
            made.put("made")
            time.sleep(seconds)
            if writes:
                path.write_text("made")


@contextmanager
def processes(number: int, *args: Any) -> Iterator[list[Any]]:
    """So many that :func:`look`; ended at the end."""
    started = [FORK.Process(target=look, args=args) for _ in range(number)]
    for each in started:
        each.start()
    try:
        yield started
    finally:
        for each in started:
            each.kill()
            each.join()


def test_one_process_makes_what_several_want(tmp_path):
    path, made = tmp_path / "new" / "table.npz", FORK.Queue()
    with processes(3, path, made, 0.5, True) as several:
        for each in several:
            each.join(60)
        assert [each.exitcode for each in several] == [0, 0, 0]
    assert made.get(timeout=60) == "made"
    assert made.empty()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_who_has_waited_in_vain_does_not_make_the_others_wait(tmp_path):
    """For what cannot be written: in turn, the last of many would begin hours late."""
    path, made = tmp_path / "table.npz", FORK.Queue()
    with processes(1, path, made, 600.0, False) as (first,):
        assert made.get(timeout=60) == "made"
        with processes(2, path, made, 600.0, False):
            with pytest.raises(Empty):
                made.get(timeout=0.5)
            first.kill()
            assert [made.get(timeout=60) for _ in range(2)] == ["made", "made"]  # each would take ten minutes


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, reason):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with first_come(tmp_path / "table.npz"):
        (tmp_path / "table.npz").touch()
    assert (tmp_path / "table.npz").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with first_come(tmp_path / "cache" / "table.npz"):
        pass
    assert (tmp_path / "cache").is_file()


def test_errors_inside_pass_and_end_the_turn(tmp_path):
    with pytest.raises(OSError, match="no space"), first_come(tmp_path / "table.npz"):
        raise OSError("no space")
    assert list(tmp_path.iterdir()) == []
