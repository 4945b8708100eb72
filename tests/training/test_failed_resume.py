"""A resume that fails leaves the folder as it was; one that goes on does what it records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from coopmap import load_config
from coopmap.cli.main import main
from coopmap.config import ConfigError
from coopmap.config.compose import complete_overrides, from_yaml
from coopmap.config.synth import TownConfig
from coopmap.data.opv2v.errors import DataError
from coopmap.runs.folder import RunFolder
from coopmap.runs.resume import differences, open_run
from coopmap.runs.stored import open_checkpoint
from coopmap.train import train
from coopmap.training.optim import warmup_cosine
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


def test_data_that_moved_are_asked_for_and_the_command_line_that_is_named_goes_on(
    copied: Path, town: TownConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the public command, on a machine whose defaults are a demo: only what is asked for changes the run."""
    stored = copied / "config.yaml"
    text = stored.read_text()
    assert text.count(town.root) == text.count(str(town.depth_root)) == 1
    stored.write_text(text.replace(town.root, "/gone/town").replace(str(town.depth_root), "/gone/depth"))
    before = content(copied)
    with pytest.raises(SystemExit) as ended:
        main(["train", f"resume={copied}", "machine=laptop"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    said, _, command = line.partition("; if the data have moved, say where to: ")
    assert said == (
        f"error: resume={copied}: data.root=/gone/town is not there and data.depth_root=/gone/depth is not there"
    )
    assert command == f"resume={copied} data.root=NEW data.depth_root=NEW"
    assert content(copied) == before
    words = command.split()
    words[1:] = [f"data.root={town.root}", f"data.depth_root={town.depth_root}"]
    main(["train", *words, "machine=laptop", "trainer.max_epochs=4"])
    changed = RunFolder(copied).read_config()
    assert (changed.data.root, changed.data.depth_root) == (town.root, town.depth_root)
    assert open_checkpoint(copied / "checkpoints" / "last.ckpt").step == 12
    differing = differences(from_yaml(text), changed)
    assert differing == ["trainer.max_epochs: 3 -> 4"]


def test_a_run_that_goes_on_is_not_completed_by_the_defaults_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    given = ["machine=laptop", "data.root=/new"]
    settings = {"data.town=null", "data.depth_root=null", "data.keep_in_memory=false"}
    assert complete_overrides([*given, "resume=some/run"]) == [*given, "resume=some/run"]
    for resume in ("auto", "null", f"{tmp_path}/a.ckpt", f"'{tmp_path}/a.ckpt'"):
        assert settings < set(complete_overrides([*given, f"resume={resume}"]))


def test_changes_to_a_run_need_not_fit_the_defaults(copied: Path) -> None:
    """Its model has patches of 14 pixels, the demo's of 8."""
    config, _ = open_run(load_config(words := [f"resume={copied}", "data.panorama.height=42"]), words)
    assert config.data.panorama.height == 42


@pytest.mark.parametrize("change", ["machine=local3090", "preset=streets"])
def test_another_machine_or_preset_is_not_passed_over(change: str, copied: Path) -> None:
    words = [f"resume={copied}", change]
    with pytest.raises(ConfigError, match=rf"^{change} resume=.* the run began with {change.partition('=')[0]}="):
        open_run(load_config(words), words)


class FirstState(L.Callback):
    """Averages and rates that the first step of a run begins with."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        if not hasattr(self, "step"):
            (self.optimizer,) = trainer.optimizers
            self.step, self.has_averages = trainer.global_step, bool(self.optimizer.state)
            self.rates = []
        self.rates.append(self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0]["initial_lr"])


@pytest.mark.parametrize(
    "reset",
    [
        pytest.param(["optimizer"], marks=pytest.mark.slow),
        pytest.param(["schedule"], marks=pytest.mark.slow),
        ["optimizer", "schedule"],
    ],
)
def test_optimizer_and_schedule_begin_anew_once(
    reset: list[str], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def go_on(epochs: int, *more: str) -> FirstState:
        seen = FirstState()
        chosen = [f"resume={copied}", "machine=laptop", f"trainer.max_epochs={epochs}", *more]
        train(load_config(["machine=laptop", f"resume={copied}", *more]), chosen, [seen])
        return seen

    first = go_on(5, f"resume_reset=[{','.join(reset)}]")
    assert (first.step, first.has_averages) == (9, "optimizer" not in reset)
    optim = RunFolder(copied).read_config().optim
    steps = 6 if "schedule" in reset else 15
    factor = warmup_cosine(steps, optim)
    assert first.rates == pytest.approx([factor(step) for step in range(steps - 6, steps)])
    said = capsys.readouterr().out
    assert ("resume: the optimizer's averages begin anew" in said) == ("optimizer" in reset)
    assert ("schedule begins anew, over the 6 steps that are left" in said) == ("schedule" in reset)
    starts = json.loads((copied / "starts.json").read_text())
    assert [start["reset"] for start in starts] == [[], reset]
    assert RunFolder(copied).read_config().resume_reset == []

    again = go_on(6)  # nothing begins anew, and the schedule still counts from where it began
    assert (again.step, again.has_averages) == (15, True)
    factor = warmup_cosine(steps + 3, optim)
    assert again.rates == pytest.approx([factor(step) for step in range(steps, steps + 3)])
