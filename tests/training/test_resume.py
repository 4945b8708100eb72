"""A run that was interrupted and continued is the run that was not interrupted."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from coopmap import load_config
from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.runs.metrics_file import read_metrics
from coopmap.train import train
from coopmap.training.assembly import build_datamodule
from coopmap.training.run import TrainingResult

from .same_run import assert_same_run

Overrides = Callable[..., list[str]]
SETTINGS = ("checkpoint.every_n_steps=2",)


class Killed(Exception):
    """Stands in for the end of the process, at an exact place."""


class StepLog(L.Callback):
    """Per step: global step, learning rate, samples, loss. Raises at ``kill_at = (hook, step)``."""

    def __init__(self, kill_at: tuple[str, int] | None = None) -> None:
        self.kill_at = kill_at
        self.steps: list[tuple[Any, ...]] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._maybe_die("batch_start", trainer)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        samples = [(meta.scenario, meta.frame, *meta.agents) for meta in batch.metas]
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self.steps.append((trainer.global_step, trainer.current_epoch, rates, samples, outputs["loss"].item()))
        self._maybe_die("batch_end", trainer)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.state.fn == "fit":
            self._maybe_die("validation_start", trainer)

    def _maybe_die(self, hook: str, trainer: L.Trainer) -> None:
        if self.kill_at == (hook, trainer.global_step):
            raise Killed


def run(overrides: list[str], log: StepLog) -> TrainingResult:
    return train(load_config(overrides), overrides, [log])


@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param(("batch_start", 2), marks=pytest.mark.slow),  # just saved
        ("batch_start", 5),  # one step lost
        pytest.param(("batch_end", 3), marks=pytest.mark.slow),  # last of an epoch
        ("validation_start", 6),  # a checkpoint at this step would have left the validation out
        pytest.param(("batch_start", 6), marks=pytest.mark.slow),  # first of an epoch, after validation
        ("batch_end", 9),  # very last
    ],
    ids=lambda place: f"{place[0]}-{place[1]}",
)
def test_continues_exactly(kill_at: tuple[str, int], overrides: Overrides, tmp_path: Path, finished: TrainingResult):
    chosen = overrides(*SETTINGS, f"run_dir={tmp_path}/run")
    with pytest.raises(Killed):
        run(chosen, StepLog(kill_at))
    continued = StepLog()
    result = run([*chosen, "resume=auto"], continued)
    assert result.run.path == tmp_path / "run"
    assert continued.steps
    assert [step[0] for step in continued.steps] == list(range(10 - len(continued.steps), 10))
    assert_same_run(tmp_path / "run", finished.run.path)


def test_continues_exactly_from_a_checkpoint_written_in_the_background(
    overrides: Overrides, tmp_path: Path, finished: TrainingResult
) -> None:
    chosen = overrides("checkpoint.every_n_minutes=1e-9", f"run_dir={tmp_path}/run")
    with pytest.raises(Killed):
        run(chosen, StepLog(("batch_start", 5)))
    continued = StepLog()
    run([*chosen, "resume=auto"], continued)
    assert [step[0] for step in continued.steps] == [6, 7, 8, 9]
    assert_same_run(tmp_path / "run", finished.run.path)


def test_overfitting_goes_on_with_the_batches_that_it_began_with(overrides: Overrides, tmp_path: Path) -> None:
    settings = ("debug=overfit", "trainer.max_epochs=3", *SETTINGS, "callbacks.validate_at_start=false")
    straight, continued = StepLog(), StepLog()
    run(overrides(*settings, f"run_dir={tmp_path}/straight"), straight)
    chosen = overrides(*settings, f"run_dir={tmp_path}/run")
    with pytest.raises(Killed):
        run(chosen, StepLog(("batch_start", 4)))  # the second of three batches of an epoch
    run([*chosen, "resume=auto"], continued)
    assert len(straight.steps) == 9
    assert continued.steps == straight.steps[4:]


def test_killed_before_the_first_checkpoint_starts_again(
    overrides: Overrides, tmp_path: Path, finished: TrainingResult
) -> None:
    chosen = overrides(*SETTINGS, f"run_dir={tmp_path}/run")
    with pytest.raises(Killed):
        run(chosen, StepLog(("batch_start", 1)))
    run([*chosen, "resume=auto"], StepLog())
    assert_same_run(tmp_path / "run", finished.run.path)


def test_run_folder_goes_on_with_changes(overrides: Overrides, tmp_path: Path) -> None:
    chosen = overrides("trainer.max_epochs=1", f"run_dir={tmp_path}/run")
    run(chosen, StepLog())
    assert (tmp_path / "run" / "metrics.json").exists()
    log = StepLog()
    again = [f"resume={tmp_path}/run", "trainer.max_epochs=2"]
    result = train(load_config(["machine=laptop", *again]), again, [log])
    assert [step[0] for step in log.steps] == [4, 5, 6]
    assert result.run.path == tmp_path / "run"
    assert [entry["step"] for entry in result.validations] == [0, 3, 6]


@pytest.mark.parametrize(
    ("end", "steps", "validated"),
    [
        ("trainer.max_steps=2", [3, 4, 5, 6], [2, 3, 6]),
        ("trainer.check_val_every_n_epoch=2", [4, 5, 6], [3, 6]),
    ],
)
def test_a_run_goes_on_after_an_end_that_was_validated_for_being_one(
    end: str, steps: list[int], validated: list[int], overrides: Overrides, tmp_path: Path
) -> None:
    chosen = overrides("trainer.max_epochs=1", end, "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run")
    run(chosen, StepLog())
    log, again = StepLog(), [f"resume={tmp_path}/run", "trainer.max_epochs=2", "trainer.max_steps=null"]
    result = train(load_config(again), again, [log])
    assert [step[0] for step in log.steps] == steps
    assert [entry["step"] for entry in result.validations] == validated
    rows = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    assert rows == list(range(6))


def test_goes_on_exactly_after_a_resume_with_another_length_of_epochs(overrides: Overrides, tmp_path: Path) -> None:
    shorter = ("trainer.limit_train_batches=2", "checkpoint.every_n_steps=1", "callbacks.validate_at_start=false")
    with pytest.raises(Killed):
        run(overrides(*shorter, f"run_dir={tmp_path}/run"), StepLog(("batch_start", 3)))
    shutil.copytree(tmp_path / "run", tmp_path / "straight")

    def go_on(name: str, *more: str, kill_at: tuple[str, int] | None = None) -> StepLog:
        log, again = StepLog(kill_at), [f"resume={tmp_path / name}", *more]
        with pytest.raises(Killed) if kill_at else nullcontext():
            train(load_config(again), again, [log])
        return log

    straight = go_on("straight", "trainer.limit_train_batches=null")
    go_on("run", "trainer.limit_train_batches=null", kill_at=("batch_start", 4))
    assert go_on("run").steps == straight.steps[1:]
    assert [step[:2] for step in straight.steps] == [(4, 1), (5, 1), (6, 2), (7, 2), (8, 2)]
    loader = build_datamodule(load_config(overrides())).train_dataloader()
    loader.batch_sampler.set_epoch(1)  # type: ignore[union-attr]
    second = list(loader)[1]
    assert straight.steps[0][3] == [(meta.scenario, meta.frame, *meta.agents) for meta in second.metas]


DRIVER = """
import json, os, signal, sys, threading, time
import lightning as L
from coopmap import load_config
from coopmap.train import train
from coopmap.training.assembly import build_datamodule

log, last_step, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

class StepLog(L.Callback):
    ended = 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        samples = [[meta.scenario, meta.frame, *meta.agents] for meta in batch.metas]
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        with open(log, "a") as file:
            file.write(json.dumps([trainer.global_step, rates, samples, outputs["loss"].item()]) + "\\n")
        if trainer.global_step == last_step:
            delay = share * (time.monotonic() - self.ended)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        self.ended = time.monotonic()

train(load_config(sys.argv[4:]), sys.argv[4:], [StepLog()])
"""


def run_driver(log: Path, overrides: list[str], last_step: int, share: float) -> int:
    """A run in a process of its own, killed a share of a step's time after ``last_step``; its status."""
    command = [sys.executable, "-c", DRIVER, str(log), str(last_step), str(share), *overrides]
    # not a pipe: loader processes would hold it for a while after their parent's death
    with log.with_suffix(".err").open("w") as errors:
        return subprocess.run(command, stderr=errors).returncode


def entries(log: StepLog) -> list[list[Any]]:
    """What the driver writes."""
    return [[step, rates, [list(sample) for sample in samples], loss] for step, _, rates, samples, loss in log.steps]


def read_log(log: Path) -> list[list[Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("]")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_sigkill_at_a_random_step(seed: int, overrides: Overrides, tmp_path: Path) -> None:
    generator = random.Random(seed)
    place = generator.randint(4, 9), generator.random()
    settings = (
        "data.steps_per_epoch=5",
        "data.num_workers=2",
        "checkpoint.every_n_steps=3",
        "callbacks.validate_at_start=false",
    )
    chosen = overrides(*settings, f"run_dir={tmp_path}/killed")
    status = run_driver(tmp_path / "killed.log", chosen, *place)
    assert status == -signal.SIGKILL, (tmp_path / "killed.err").read_text()
    ours, reference = StepLog(), StepLog()
    run([*chosen, "resume=auto"], ours)
    result = run(overrides(*settings, f"run_dir={tmp_path}/straight"), reference)
    killed, continued = read_log(tmp_path / "killed.log"), entries(ours)
    expected = {entry[0]: entry for entry in entries(reference)}
    message = f"killed after {len(killed)} steps"
    assert len(expected) == 15
    assert place[0] <= len(killed) < 15, message
    assert continued[0][0] > 1, message
    assert [entry[0] for entry in continued] == list(range(continued[0][0], 16)), message
    for entry in [*killed, *continued]:
        assert entry == expected[entry[0]], message
    assert_same_run(tmp_path / "killed", result.run.path)


@pytest.mark.slow  # test_stopping.py stops runs by either signal at several moments, in this process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_saves_the_step_in_progress(number: signal.Signals, overrides: Overrides, tmp_path: Path) -> None:
    """The whole process group gets it, loader processes too, as from a terminal or a batch system."""
    chosen = overrides(
        "trainer.max_epochs=1000", "data.num_workers=2", "callbacks.validate_at_start=false", f"run_dir={tmp_path}/run"
    )
    command = [sys.executable, "-m", "coopmap.train", *chosen]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # shells have jobs in the background ignore SIGINT
    )
    metrics = tmp_path / "run" / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 4):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, number)
    output, _ = process.communicate()
    assert process.returncode == 143, output
    assert f"{number.name}: stopping after this step" in output
    assert "Traceback" not in output
    checkpoint = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    rows = [row for row in read_metrics(metrics) if "train/loss" in row]
    assert checkpoint["global_step"] == len(rows)
    assert not (tmp_path / "run" / "metrics.json").exists()
