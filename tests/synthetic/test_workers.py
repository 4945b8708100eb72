"""Processes that render: they need nothing of the script that asks, and end when it does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coopmap.synthetic.workers import WorkerError, map_unordered

GUARDLESS = """
from coopmap.synthetic.workers import map_unordered
print(sorted(map_unordered(abs, [-3, -2, -1], 2)))
"""

LONG_WORK = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would children
from coopmap.synthetic.workers import map_unordered
shows_itself = "(__import__('time').sleep(1), __import__('os').getpid())[1]"  # long enough for both workers to get one
for pid in map_unordered(eval, [shows_itself] * 2 + ["__import__('time').sleep(100)"] * 2, 2):
    print(pid, flush=True)
"""


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_input_is_worked_on_once(workers: int) -> None:
    assert sorted(map_unordered(abs, range(-3, 1), workers)) == [0, 1, 2, 3]


def test_no_input_needs_no_worker() -> None:
    assert list(map_unordered(abs, [], 2)) == []


def test_failing_function_ends_the_work(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerError, match="a worker process ended with status 1"):
        list(map_unordered(int, ["1", "no number", "3"], 2))
    assert "invalid literal for int() with base 10: 'no number'" in capfd.readouterr().err


def test_a_file_that_fails_is_told_as_without_workers(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere") as caught:
        list(map_unordered(os.listdir, [".", "/nowhere", "."], 2))
    assert caught.value.filename == "/nowhere"
    assert capfd.readouterr().err == ""


def test_script_without_a_guard_can_use_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(GUARDLESS)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[1, 2, 3]\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_program_leaves_no_worker_behind(number: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LONG_WORK)
    program = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert program.stdout is not None
    workers = [int(program.stdout.readline()) for _ in range(2)]
    assert len({*workers, program.pid}) == 3
    os.kill(program.pid, number)
    program.wait(timeout=90)  # the work itself takes longer
    deadline = time.monotonic() + 90
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")
