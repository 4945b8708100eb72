"""Callbacks on a regression of two numbers."""

import io
import logging
import multiprocessing
import re
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from coopmap import load_config
from coopmap.config.train import CheckpointConfig
from coopmap.training.callbacks import (
    LastCheckpoint,
    Memory,
    ProgressLines,
    RunProgressBar,
    StepTiming,
    ValidationHistory,
    progress,
    progress_callback,
)


class Jumping:
    """The time of day, which somebody keeps setting: a day forward, then a day back."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return 1.7e9 + (86_400 if self.calls % 2 else -86_400)


def test_the_time_of_day_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints by time, speed and time left go by a clock that cannot be set."""
    shown: list[str] = []
    now = [0.0]
    monkeypatch.setattr("time.time", Jumping())
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    last = LastCheckpoint(tmp_path / "last.ckpt", CheckpointConfig(every_n_minutes=2))
    saved: list[int] = []
    save = last._save
    monkeypatch.setattr(last, "_save", lambda trainer, *how: (saved.append(trainer.global_step), save(trainer, *how)))

    class Clock(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            now[0] += 61.0

    class Lines(ProgressLines):
        def show_training(self, trainer: L.Trainer, figures: str, left: Any) -> None:
            shown.append(f"{figures} {left}")

    fit([Clock(), Lines(lambda done: 0, 1.0), last], max_epochs=2, limit_val_batches=0)
    assert saved == [2, 4, 6, 8]
    assert [re.search(r"([\d.]+) s/step (.*)", line).groups() for line in shown][:3] == [  # type: ignore[union-attr]
        ("61", f"0:{minutes:02d}:{seconds:02d}") for minutes, seconds in (divmod(61 * left, 60) for left in (7, 6, 5))
    ]


class Regression(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/pose_trans_avg", batch.mean() + self.global_step)
        self.log("val/trans_m_mean", batch.mean() + self.global_step + 0.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callbacks: list[L.Callback], **options: Any) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, LastCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        log_every_n_steps=1,
        callbacks=callbacks,
        **{"max_epochs": 2, **options},
    )
    loader = DataLoader(torch.zeros(4, 1))  # type: ignore[arg-type]
    trainer.fit(Regression(), loader, loader)
    return trainer


def after_each_epoch(done: int) -> int:
    """Validations of two epochs of four steps that are left, that of the best checkpoint included."""
    return 2 - done // 4 + 1


def test_history_keeps_training_validations_and_the_first_of_all() -> None:
    history = ValidationHistory()
    trainer = fit([history])
    assert history.entries == [
        {"step": 4, "val/pose_trans_avg": 4.0, "val/trans_m_mean": 4.5},
        {"step": 8, "val/pose_trans_avg": 8.0, "val/trans_m_mean": 8.5},
    ]
    trainer.validate(Regression(), DataLoader(torch.ones(1, 1)), verbose=False)  # type: ignore[arg-type]
    assert len(history.entries) == 2
    fresh = ValidationHistory()
    fresh.load_state_dict(history.state_dict())
    assert fresh.entries == history.entries


def validated(step: int, value: float, loggers: Sequence[Any] = (), **figures: float) -> L.Trainer:
    """A trainer that has just validated."""
    figures = {"pose_trans_avg": value, "loss": 1.0, **figures}
    state = SimpleNamespace(fn="fit")
    trainer: Any = SimpleNamespace(
        sanity_checking=False,
        state=state,
        callback_metrics={f"val/{name}": torch.tensor(figure) for name, figure in figures.items()},
        global_step=step,
        is_global_zero=True,
        loggers=loggers,
    )
    return trainer


def test_history_gives_wandb_the_level_before_training_with_every_validation() -> None:
    logged: list[tuple[dict[str, float], int]] = []

    class Remembering(WandbLogger):
        def __init__(self) -> None:
            pass

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            logged.append((metrics, step or 0))

    history, module = ValidationHistory(), Regression()
    for step, value in ((0, 9.0), (5, 4.0)):
        history.on_validation_end(validated(step, value, [Remembering()]), module)
    assert logged == [({"zero_shot/pose_trans_avg": 9.0}, 0), ({"zero_shot/pose_trans_avg": 9.0}, 5)]


@pytest.mark.parametrize(
    ("values", "warned_after"),
    [
        ([(0, 9.0), (5, 9.5), (10, 9.4), (15, 9.1), (20, 8.9), (25, 9.2), (30, 9.3)], [10, 15, 30]),
        ([(5, 9.0), (10, 9.5), (15, 9.4)], []),  # not measured before training
    ],
)
def test_a_run_that_makes_the_model_worse_says_so_while_it_trains(
    caplog: pytest.LogCaptureFixture, values: list[tuple[int, float]], warned_after: list[int]
) -> None:
    history, warned = ValidationHistory(), []
    for step, value in values:
        caplog.clear()
        history.on_validation_end(validated(step, value), Regression())
        if any("makes the model worse" in record.getMessage() for record in caplog.records):
            warned.append(step)
    assert warned == warned_after


def test_matches_that_form_are_no_harm_although_poses_wait_for_them(caplog: pytest.LogCaptureFixture) -> None:
    history = ValidationHistory()
    for step, accuracy in ((0, 0.01), (5, 0.02), (10, 0.04)):
        history.on_validation_end(validated(step, 9.0 + step, match_accuracy_mean=accuracy), Regression())
    assert "makes the model worse" not in caplog.text
    history.on_validation_end(validated(15, 30.0, match_accuracy_mean=0.01), Regression())
    assert "makes the model worse" in caplog.text


class Saves(L.Callback):
    """At which steps a checkpoint was written."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("every_n_steps", "every_n_minutes", "options", "expected"),
    [
        (3, None, {}, [3, 4, 6, 8]),  # 4 and 8 are validations
        (2, None, {}, [2, 4, 6, 8]),  # once, not before and after a validation
        (None, 1e-9, {}, [1, 2, 3, 4, 5, 6, 7, 8]),
        (None, 1e9, {}, [4, 8]),
        (None, None, {"limit_val_batches": 0}, [8]),  # the end, without any validation
        (1, None, {"accumulate_grad_batches": 2}, [1, 2, 3, 4]),
        (1, None, {"fast_dev_run": 2}, []),
    ],
)
def test_last_checkpoint_is_written_when_it_should(
    every_n_steps: int | None,
    every_n_minutes: float | None,
    options: dict[str, Any],
    expected: list[int],
    tmp_path: Path,
) -> None:
    saves = Saves()
    last = LastCheckpoint(tmp_path / "last.ckpt", CheckpointConfig("val/loss", every_n_steps, every_n_minutes))
    fit([saves, last], **options)
    assert saves.steps == expected
    assert (tmp_path / "last.ckpt").exists() == bool(expected)


def test_a_checkpoint_that_is_due_by_time_waits_for_the_end_of_an_accumulated_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of half a step is in no checkpoint: a run that went on from there would take a step of the rest."""
    now, saved = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Clock(L.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            now[0] += 21.0  # a minute is over in the third batch of each epoch

        def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
            saved.append((trainer.fit_loop.epoch_loop.batch_progress.current.processed, trainer.global_step))

    last = LastCheckpoint(tmp_path / "last.ckpt", CheckpointConfig("val/loss", None, 1.0))
    fit([Clock(), last], accumulate_grad_batches=2, limit_val_batches=0)
    assert saved == [(4, 2), (4, 4)]


def test_progress_lines_say_where_training_stands(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coopmap")
    fit([ProgressLines(after_each_epoch, seconds=0), ValidationHistory()])
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("epoch 2/2  step 7/8  loss ") and line.endswith(" left") for line in lines)
    assert "validation at step 8: pose_trans_avg 8  translation (m) 8.5" in lines


class Clock(L.Callback):
    """A time of its own: a step takes a second, a batch of validation ten."""

    def __init__(self) -> None:
        self.now = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 1

    def on_validation_batch_start(self, *_: Any) -> None:
        self.now += 10


def test_time_left_is_that_of_the_whole_run(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "coopmap")
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    fit([clock, ProgressLines(after_each_epoch, seconds=0)], limit_val_batches=1)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch")]
    left = [line.rpartition("  ")[2].removesuffix(" left") for line in lines]
    # validations are not known to take time before there was one; then two are left, that of the best included
    assert left == ["0:00:07", "0:00:06", "0:00:05", "0:00:04", "0:00:23", "0:00:22", "0:00:21", "0:00:20"]


def test_time_left_of_a_validation(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "coopmap")
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    fit([clock, ProgressLines(after_each_epoch, seconds=0)], max_epochs=1)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("validating")]
    left = ["0:00:30", "0:00:20", "0:00:10", "0:00:00"]
    assert lines[1:] == [f"validating: batch {done}/4  {each} left" for done, each in enumerate(left, start=1)]


def test_progress_gives_the_error_of_the_last_validation_in_meters(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coopmap")
    fit([ProgressLines(after_each_epoch, seconds=0)])
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch")]
    errors = [line.partition("error ")[2].partition("  ")[0] for line in lines]
    assert errors[:4] == ["0.5 m"] * 4  # Lightning's sanity check
    assert errors[-4:] == ["4.5 m"] * 4


def test_bar_fits_80_columns_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    bar = RunProgressBar(after_each_epoch)
    fit([bar])
    lines = [line for line in re.split(r"[\r\n]|\x1b\[[0-9?]*[A-Za-z]", screen.getvalue()) if "epoch" in line]
    assert any("epoch 2/2" in line and "8/8  loss" in line and line.rstrip().endswith("left") for line in lines)
    assert max(map(len, lines)) <= 80
    assert not bar._bar.live.is_started
    assert not bar._bar.tasks


def test_progress_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    config = load_config(["machine=laptop"])
    assert isinstance(progress_callback(config), RunProgressBar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert isinstance(progress_callback(config), ProgressLines)
    config.callbacks.progress = "none"
    assert progress_callback(config) is None


def test_timing_separates_waiting_for_data() -> None:
    trainer = fit([StepTiming()])
    figures = trainer.callback_metrics
    assert 0 <= figures["time/data_s"] < figures["time/step_s"]


def hold(size: int, said: Connection) -> None:
    """What a loader process does: it holds some memory while others work."""
    held = bytearray(size)
    said.send(len(held))
    said.recv()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not tell")
def test_memory_of_loader_processes_is_logged() -> None:
    mine, other = multiprocessing.Pipe()
    loader = multiprocessing.get_context("spawn").Process(target=hold, args=(200_000_000, other), daemon=True)
    loader.start()
    assert mine.recv() == 200_000_000
    figures = fit([Memory()]).callback_metrics
    mine.send(None)
    loader.join()
    assert 0.2 < figures["memory/loaders_gb"] < 2
    assert figures["memory/host_gb"] > 0
