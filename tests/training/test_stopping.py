"""Signals, dead loader processes and full disks: the run ends with a line, and what was trained is saved."""

import errno
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from coopmap import load_config
from coopmap.cli.errors import user_errors_end_quietly
from coopmap.data.opv2v import images as opv2v_images
from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.runs.metrics_file import read_metrics
from coopmap.runs.signals import SIGNALS, Stopped
from coopmap.train import train, train_command
from coopmap.training.callbacks import LoaderError
from coopmap.training.callbacks.stop_signal import explained, is_loader_failure
from coopmap.training.run import TrainingResult

from .same_run import assert_same_run

Overrides = Callable[..., list[str]]


class Event(L.Callback):
    """Does something once, in a hook at a step, while ``fn`` runs."""

    def __init__(self, action: Callable[[], None], hook: str, step: int, fn: str = "fit") -> None:
        self.action, self.step, self.fn, self.done = action, step, fn, False
        setattr(self, hook, self._maybe)

    def _maybe(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if not self.done and trainer.global_step == self.step and trainer.state.fn == self.fn:
            self.done = True
            self.action()


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Tests that a shell started in the background ignore Ctrl-C from the start, and so would the runs in them."""
    numbers = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def signals(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def run(overrides: list[str], *callbacks: L.Callback) -> TrainingResult:
    return train(load_config(overrides), overrides, callbacks)


@pytest.mark.parametrize(
    ("number", "hook", "step"),
    [
        (signal.SIGTERM, "on_train_batch_end", 2),
        (signal.SIGUSR1, "on_train_batch_end", 3),  # a validation comes next, and is measured when the run goes on
        pytest.param(signal.SIGHUP, "on_validation_batch_end", 6, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "on_train_batch_start", 3, marks=pytest.mark.slow),  # first of an epoch, not begun
    ],
)
def test_a_signal_stops_between_two_steps_and_the_run_goes_on_exactly(
    number: signal.Signals, hook: str, step: int, overrides: Overrides, tmp_path: Path, finished: TrainingResult
) -> None:
    chosen = overrides("checkpoint.every_n_steps=2", f"run_dir={tmp_path}/run")
    with pytest.raises(Stopped, match="143") as caught:
        run(chosen, Event(signals(number), hook, step))
    assert caught.value.reason == "stopped on a signal; the same command with resume=auto continues"
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == step
    run([*chosen, "resume=auto"])
    assert_same_run(tmp_path / "run", finished.run.path)


def test_a_run_that_max_time_stops_is_unfinished_and_goes_on_exactly_for_as_long_again(
    overrides: Overrides, finished: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, clock = [0.0], time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: clock() + passed[0])

    def an_hour_passes() -> None:
        passed[0] += 3600

    chosen = overrides("trainer.max_time=00:01:00:00")
    with pytest.raises(Stopped, match="143") as caught:
        run(chosen, Event(an_hour_passes, "on_train_batch_end", 2))
    assert caught.value.reason == (
        "stopped by trainer.max_time after 2 of 9 steps; the same command with resume=auto continues"
    )
    with pytest.raises(Stopped, match="143"):
        run([*chosen, "resume=auto"], Event(an_hour_passes, "on_validation_batch_end", 6))  # which goes to its end
    result = run(overrides("trainer.max_time=00:00:30:00", "resume=auto"))
    assert len(list(result.run.path.parent.iterdir())) == 1
    assert [start["resumed_from"] is not None for start in result.run.read_starts()] == [False, True, True]
    assert_same_run(result.run.path, finished.run.path)


def test_a_run_that_ends_within_an_epoch_is_validated_there_also_after_a_signal_in_that_validation(
    overrides: Overrides, tmp_path: Path
) -> None:
    settings = ("callbacks.validate_at_start=false", "trainer.max_steps=4")
    chosen = overrides(*settings, f"run_dir={tmp_path}/run")
    with pytest.raises(Stopped, match="143"):
        run(chosen, Event(signals(signal.SIGTERM), "on_validation_batch_end", 4))
    stopped = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert stopped["global_step"] == 4
    assert [entry["step"] for entry in stopped["callbacks"]["ValidationHistory"]["entries"]] == [3]
    result = run([*chosen, "resume=auto"])
    validations = result.summary["validations"]
    assert validations["last"]["step"] == 4
    assert validations["best"]["val/pose_trans_avg"] == min(entry["val/pose_trans_avg"] for entry in result.validations)
    straight = run(overrides(*settings, f"run_dir={tmp_path}/straight"))
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    assert straight.summary["validations"] == validations


def test_a_signal_before_the_first_step_leaves_nothing(overrides: Overrides, tmp_path: Path) -> None:
    event = Event(signals(signal.SIGTERM), "on_validation_batch_end", 0, "validate")
    with pytest.raises(Stopped) as caught:
        run(overrides(f"run_dir={tmp_path}/run"), event)
    assert (caught.value.code, caught.value.reason) == (
        143,
        "SIGTERM: stopped before the first step; nothing was trained",
    )
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_the_last_measurement_says_what_is_left(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = overrides("trainer.max_epochs=1", "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run")
    event = Event(signals(signal.SIGINT), "on_validation_batch_end", 3, "validate")
    with pytest.raises(SystemExit) as caught, user_errors_end_quietly():
        run(chosen, event)
    assert caught.value.code == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "SIGINT: stopped when training was complete; resume=auto measures the best checkpoint again"
    assert not (tmp_path / "run" / "metrics.json").exists()
    run([*chosen, "resume=auto"])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_a_killed_loader_process_is_named_and_the_step_saved(overrides: Overrides, tmp_path: Path) -> None:
    def kill() -> None:
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)  # type: ignore[arg-type]

    settings = ("data.num_workers=1", "data.steps_per_epoch=50", "callbacks.validate_at_start=false")
    chosen = overrides(*settings, f"run_dir={tmp_path}/run")
    began = time.monotonic()
    with pytest.raises(LoaderError, match=r"^DataLoader worker .*out of memory\? Fewer data\.num_workers need less"):
        run(chosen, Event(kill, "on_train_batch_end", 2))
    assert time.monotonic() - began < 300
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == len(rows) >= 2


@pytest.mark.slow
def test_a_loader_process_without_memory_is_named_and_no_file_is_blamed(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory ends while an image is decoded, at a limit like that of a container or of ``ulimit``."""
    images, decode = [0], opv2v_images.quick_rgb

    def hungry(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
        images[0] += 1
        if torch.utils.data.get_worker_info() is not None and images[0] > 60:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
            bytearray(1_000_000_000)
        return decode(data, size)

    monkeypatch.setattr(opv2v_images, "quick_rgb", hungry)
    settings = ("data.num_workers=1", "data.keep_in_memory=false", "data.steps_per_epoch=50")
    chosen = overrides(*settings, "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run")
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended, user_errors_end_quietly():
        run(chosen)
    assert ended.value.code == 2
    assert time.monotonic() - began < 300
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: Caught MemoryError in DataLoader worker process 0: out of memory?")
    assert "skipped" not in (tmp_path / "run" / "train.log").read_text()
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == len(rows) >= 2


def connect(path: Path) -> None:
    multiprocessing.connection.Client(str(path))


@pytest.mark.parametrize(("read", "is_failure"), [(connect, True), (Path.read_bytes, False)])
def test_a_lost_connection_to_a_loader_is_told_from_a_missing_file(
    read: Callable[[Path], Any], is_failure: bool, tmp_path: Path
) -> None:
    class Reader(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> Any:
            return read(tmp_path / "nothing")

    with pytest.raises(FileNotFoundError) as caught:
        next(iter(torch.utils.data.DataLoader(Reader(), sampler=[0])))
    assert is_loader_failure(caught.value) is is_failure
    assert explained(str(caught.value)).startswith("DataLoader worker ended unexpectedly ([Errno 2]")


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
        (MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback ..."), True),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ..."), False),
    ],
)
def test_what_a_living_loader_raises_is_no_death_of_it(error: Exception, is_failure: bool) -> None:
    assert is_loader_failure(error) is is_failure


@pytest.mark.parametrize("due", ["checkpoint.every_n_steps=1", "checkpoint.every_n_minutes=1e-9"])
def test_a_full_disk_is_named_and_the_last_good_checkpoint_stays(
    due: str, overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill() -> None:
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            time.sleep(0.01)

        def no_space(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("coopmap.runs.seal.SealedStream._put_all", no_space, raising=True)

    chosen = overrides(due, "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run")
    with pytest.raises(SystemExit) as caught, user_errors_end_quietly():
        run(chosen, Event(fill, "on_train_batch_start", 1))
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no space left on /")
    assert "last.ckpt" in last
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 1
    assert not list((tmp_path / "run").rglob(".*.tmp"))


@pytest.mark.parametrize("end", [signals(signal.SIGTERM), lambda: 1 / 0], ids=["SIGTERM", "error"])
def test_whatever_ends_a_run_waits_for_what_is_being_written(
    end: Callable[[], None], overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def slow(*content: Any) -> None:
        time.sleep(0.3)
        save(*content)

    monkeypatch.setattr(torch, "save", slow)
    chosen = overrides(
        "checkpoint.every_n_minutes=1e-9", "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run"
    )
    with pytest.raises((Stopped, ZeroDivisionError)):
        run(chosen, Event(end, "on_train_batch_start", 2))
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2
    assert not list((tmp_path / "run").rglob(".*.tmp"))


def test_figures_that_are_no_numbers_end_with_an_error(overrides: Overrides, monkeypatch: pytest.MonkeyPatch) -> None:
    from coopmap.metrics.term_means import TermMeans
    from coopmap.training.module import NonFiniteError

    compute = TermMeans.compute
    monkeypatch.setattr(TermMeans, "compute", lambda self, device: {**compute(self, device), "loss": float("nan")})
    chosen = overrides("trainer.max_epochs=1", "callbacks.validate_at_start=false")
    with pytest.raises(NonFiniteError, match=r"figures that are no numbers: val/loss of the last validation"):
        train_command(load_config(chosen), chosen)


ONE_BATCH = """
import sys
from coopmap import load_config
from coopmap.data import OPV2VDataModule
config = load_config(sys.argv[1:])
data = OPV2VDataModule(config.data)
batches = iter(data.train_dataloader())
batch = next(batches)
print("got", len(batch.metas), flush=True)
"""


@pytest.mark.slow
def test_a_script_that_takes_one_batch_ends(overrides: Overrides) -> None:
    command = [sys.executable, "-c", ONE_BATCH, *overrides("data.num_workers=2")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert output.startswith("got ")
    assert process.returncode == 0


@pytest.mark.slow
def test_a_disk_that_is_full_in_training(overrides: Overrides, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting takes a privilege")
    try:
        chosen = overrides("checkpoint.every_n_steps=1", "trainer.max_epochs=1000", f"run_dir={disk}/run")
        chosen += ["callbacks.validate_at_start=false", "model.info_sharing.dim=48", "model.encoder.dim=48"]
        command = [sys.executable, "-m", "coopmap.train", *chosen]
        filler = disk / "filler"
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        last = disk / "run" / "checkpoints" / "last.ckpt"
        while not last.exists():
            assert process.poll() is None
            time.sleep(0.01)
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2, errors
        assert errors.splitlines()[-1].startswith(f"error: no space left on {disk} for {disk}/run"), errors
        filler.unlink()
        assert read_checkpoint(last)["global_step"] >= 1
        assert not list(disk.rglob(".*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=False)
