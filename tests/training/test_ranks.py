"""Two processes train on what one process with twice the accumulation trains on, and one continues what two began.

What they measure together is what one process measures.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.evaluate import evaluate
from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.runs.folder import RunFolder
from coopmap.train import train
from coopmap.training.assembly import validate_best
from coopmap.training.continuing import RecordStart

Overrides = Callable[..., list[str]]


class BatchLog(L.Callback):
    """Samples, mean of the images and loss of each micro-batch; the process dies at the start of ``last_step``."""

    def __init__(self, file: Path, last_step: int = -1) -> None:
        self.file, self.last_step = file, last_step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.last_step:
            os._exit(0)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        place = trainer.datamodule.micro_batch(index)
        rows = [[meta.scenario, meta.frame, *meta.agents] for meta in batch.metas]
        image = batch.observation.images.float().mean().item()
        loss = outputs["loss"].item() * trainer.accumulate_grad_batches
        with open(f"{self.file}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps([place, rows, image, loss]) + "\n")


def run(log: Path, overrides: list[str], last_step: int = -1) -> None:
    train(load_config(overrides), overrides, [BatchLog(log, last_step)])


def run_on_two_ranks(log: Path, overrides: list[str], last_step: int) -> None:
    command = [sys.executable, __file__, str(log), str(last_step), *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def logged(log: Path) -> dict[int, list]:
    """Micro-batches of all ranks by their place in the global order."""
    lines = [
        json.loads(line) for file in log.parent.glob(f"{log.name}.[0-9]") for line in file.read_text().splitlines()
    ]
    assert len(lines) == len({line[0] for line in lines})
    return {line[0]: line[1:] for line in lines}


def test_two_ranks_see_what_one_sees_and_one_continues_what_two_began(overrides: Overrides, tmp_path: Path) -> None:
    settings = (
        "callbacks.validate_at_start=false",
        "checkpoint.every_n_steps=2",
        "checkpoint.every_n_minutes=null",
        "trainer.max_epochs=2",
        "optim.lr=1e-4",
        "task=augmented",
    )
    alone_as_two = ("trainer.accumulate_grad_batches=2", "trainer.limit_val_batches=1")
    logs = {name: tmp_path / name for name in ("alone", "begun", "rest")}
    run(logs["alone"], overrides(*settings, *alone_as_two, f"run_dir={tmp_path}/a"))
    # an epoch of three steps and one more: the checkpoint lies within an epoch
    run_on_two_ranks(logs["begun"], overrides(*settings, "trainer.devices=2", f"run_dir={tmp_path}/b"), last_step=4)
    best, last = (tmp_path / "b" / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    run(logs["rest"], overrides(*settings, *alone_as_two, f"resume={last}", f"run_dir={tmp_path}/c"))
    said = "resume: 2 process(es) x trainer.accumulate_grad_batches=1 before, 1 x 2 now: batches come in the same order"
    assert said in (tmp_path / "c" / "train.log").read_text()
    alone, begun, rest = map(logged, logs.values())
    assert sorted(alone) == list(range(12))
    assert sorted(begun) == list(range(8))
    assert sorted(rest) == list(range(8, 12))
    for place, (samples, image, loss) in (begun | rest).items():
        assert samples == alone[place][0]
        assert image == alone[place][1]
        assert loss == pytest.approx(alone[place][2], rel=1e-4)
    assert "6 steps on 2 process(es)" in (tmp_path / "b" / "train.log").read_text()
    (measured,) = read_checkpoint(last)["callbacks"]["ValidationHistory"]["entries"]
    assert measured.pop("step") == read_checkpoint(best)["global_step"] == 3
    assert measured == pytest.approx(evaluate(best, output=tmp_path / "measured").figures, rel=1e-5)


def test_ranks_with_a_folder_each_do_not_begin_and_measure_all_or_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("coopmap"), "propagate", True)
    run = RunFolder(tmp_path / "of_rank_0")
    strategy = SimpleNamespace(broadcast=lambda path: path, reduce_boolean_decision=lambda decision: False)
    trainer: Any = SimpleNamespace(strategy=strategy, fast_dev_run=False)
    none: Any = None
    with pytest.raises(ConfigError, match="of_rank_0: not the same on all ranks"):
        RecordStart(run, none, []).setup(trainer, none, "fit")
    assert validate_best(trainer, none, none, run) == {}
    assert not caplog.text
    run.checkpoints.mkdir(parents=True)
    run.best_checkpoint.touch()
    assert validate_best(trainer, none, none, run) == {}
    assert "not there for all ranks" in caplog.text


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[3:], int(sys.argv[2]))
