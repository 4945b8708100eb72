"""Two processes train on what one process with twice the accumulation trains on, and one continues what two began."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Overrides = Callable[..., list[str]]

DRIVER = """
import json, os, sys
import lightning as L
from coopmap import load_config
from coopmap.train import train

log, last_step = sys.argv[1], int(sys.argv[2])

class BatchLog(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == last_step:
            os._exit(0)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        place = trainer.datamodule.micro_batch(index)
        rows = [[meta.scenario, meta.frame, *meta.agents] for meta in batch.metas]
        image = batch.observation.images.float().mean().item()
        loss = outputs["loss"].item() * trainer.accumulate_grad_batches
        with open(f"{log}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps([place, rows, image, loss]) + "\\n")

train(load_config(sys.argv[3:]), sys.argv[3:], [BatchLog()])
"""


def run(log: Path, overrides: list[str], last_step: int = -1) -> dict[int, list]:
    """Micro-batches by their place in the global order: samples, mean of the images, loss; dead after a step."""
    driver = log.with_suffix(".py")
    driver.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(driver), str(log), str(last_step), *overrides], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
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
        "trainer.limit_val_batches=1",
    )
    alone = run(tmp_path / "alone", overrides(*settings, "trainer.accumulate_grad_batches=2", f"run_dir={tmp_path}/a"))
    # two steps of the first epoch's three: the checkpoint lies within an epoch
    begun = run(tmp_path / "begun", overrides(*settings, "trainer.devices=2", f"run_dir={tmp_path}/b"), last_step=2)
    checkpoint = tmp_path / "b" / "checkpoints" / "last.ckpt"
    rest = run(
        tmp_path / "rest",
        overrides(*settings, "trainer.accumulate_grad_batches=2", f"resume={checkpoint}", f"run_dir={tmp_path}/c"),
    )
    assert sorted(alone) == list(range(12))
    assert sorted(begun) == list(range(4))
    assert sorted(rest) == list(range(4, 12))
    for place, (samples, image, loss) in (begun | rest).items():
        assert samples == alone[place][0]
        assert image == alone[place][1]
        assert loss == pytest.approx(alone[place][2], rel=1e-4)
