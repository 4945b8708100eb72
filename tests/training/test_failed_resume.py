"""A resume that fails leaves the folder as it was; one that goes on does what it records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.data.opv2v.errors import DataError
from coopmap.runs.folder import RunFolder
from coopmap.runs.stored import open_checkpoint
from coopmap.train import train
from coopmap.training.run import TrainingResult

Overrides = Callable[..., list[str]]


@pytest.fixture
def copied(finished: TrainingResult, tmp_path: Path) -> Path:
    """A finished run, in another place."""
    return Path(shutil.copytree(finished.run.path, tmp_path / "copied"))


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.info_sharing.depth=4", r"its model differs from the configured one: .* only in the configured model"),
        ("model.info_sharing.dim=48", r"\d+ tensors of another shape \("),
        ("data.root=/nowhere", "/nowhere"),
        ("data.steps_per_epoch=4", r"made with data\.steps_per_epoch=3, now it is 4"),
        ("seed=5", r"made with seed=0, now it is 5"),
        (
            "optim.lr_of.encoder=0",
            r"its optimizer has other parameters \(.*encoder: .*start a new run",
        ),
        ("optim.lr=no", "optim.lr"),
    ],
)
def test_a_resume_that_fails_leaves_the_folder_as_it_was(change: str, message: str, copied: Path) -> None:
    before = content(copied)
    chosen = [f"resume={copied}", change]
    with pytest.raises((ConfigError, DataError), match=message):
        train(load_config(["machine=laptop", f"resume={copied}"]), chosen)
    assert content(copied) == before


class Rates(L.Callback):
    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.groups = [dict(group, params=None) for group in trainer.optimizers[0].param_groups]


def test_a_moved_run_keeps_its_best_and_does_what_it_records(
    copied: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coopmap.training.continuing.git_revision", lambda: {"git_revision": "f" * 40})
    best = (copied / "checkpoints" / "best.ckpt").read_bytes()
    rates = Rates()
    changes = ["optim.lr=5.0", "optim.weight_decay=0.3", "trainer.max_epochs=4", "optim.betas=[0.5,0.6]"]
    chosen = [f"resume={copied}", "machine=laptop", *changes]
    train(load_config(["machine=laptop", f"resume={copied}"]), chosen, [rates])
    assert (copied / "checkpoints" / "best.ckpt").read_bytes() == best
    assert open_checkpoint(copied / "checkpoints" / "last.ckpt").step == 12
    optim = RunFolder(copied).read_config().optim
    head = optim.lr_of["dense_head"]  # recorded, and not asked to change
    assert {group["initial_lr"] for group in rates.groups} == {5.0, head}
    last = pytest.approx(optim.final_lr_fraction)  # the schedule is that of the longer run
    assert [group["lr"] / group["initial_lr"] for group in rates.groups] == [last] * len(rates.groups)
    assert {group["weight_decay"] for group in rates.groups} == {0.0, 0.3}
    assert {tuple(group["betas"]) for group in rates.groups} == {(0.5, 0.6)}
    stored = RunFolder(copied).read_config()
    assert (stored.optim.lr, stored.trainer.max_epochs) == (5.0, 4)
    assert json.loads((copied / "starts.json").read_text())[-1]["overrides"] == changes
    said = capsys.readouterr().out
    assert "resume: from here on optim.lr: 0.01 -> 5.0" in said
    assert "resume: the code is another revision" in said
    assert "resume: the code is another revision" in (copied / "train.log").read_text()
