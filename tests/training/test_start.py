"""How a run begins, and what is left of one that cannot."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import lightning as L
import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.data.opv2v.errors import DataError
from coopmap.runs.folder import RunFolder
from coopmap.runs.loggers import PatientWandbLogger
from coopmap.runs.logs import log_to
from coopmap.train import train
from coopmap.training.start import check_start, held_for_a_run, report_start

Overrides = Callable[..., list[str]]


class Failing(L.Callback):
    """Fails at the start of training."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise RuntimeError("broken")


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.weights=/nowhere.pth", "no such file or folder"),
        ("optim.lr_of.encodr=0", "did you mean encoder"),
        ("data.root=/nowhere/opv2v", "the dataset root does not exist"),
        ("data.depth_root=/nowhere/depth", "the depth root does not exist"),
        ("data.min_agents=4", "no frame of split 'train' has data.min_agents=4"),
        ("machine=local3090", "no CUDA GPU is visible"),
        ("loss.weights.scale_distillation=1", "set model.weights, or the weight to 0"),
        ("trainer.precision=9", "9"),
    ],
)
def test_failed_start_leaves_nothing(override: str, message: str, overrides: Overrides, tmp_path: Path) -> None:
    chosen = overrides(override)
    with pytest.raises((ConfigError, DataError, ValueError), match=message):
        train(load_config(chosen), chosen)
    assert not list(tmp_path.iterdir())


def test_failed_start_leaves_what_was_there(overrides: Overrides, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "notes.txt").write_text("keep")
    chosen = overrides("model.weights=/nowhere.pth", f"run_dir={tmp_path}/runs/mine")
    with pytest.raises(ConfigError):
        train(load_config(chosen), chosen)
    assert (tmp_path / "runs" / "mine").is_dir()
    assert (tmp_path / "runs" / "notes.txt").read_text() == "keep"


def test_a_run_that_has_measured_something_stays(overrides: Overrides, tmp_path: Path) -> None:
    chosen = overrides(f"run_dir={tmp_path}/run")
    with pytest.raises(RuntimeError, match="broken"):
        train(load_config(chosen), chosen, [Failing()])
    assert (tmp_path / "run" / "metrics.csv").exists()  # of the validation before the first step
    log = (tmp_path / "run" / "train.log").read_text()
    assert "mapanything_tiny starts from random weights" in log.splitlines()[1]
    assert "mask_pred_mean" not in log


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes of W&B runs, none of which reaches W&B."""
    codes: list[int] = []
    monkeypatch.setattr("wandb.finish", lambda exit_code: codes.append(exit_code))
    monkeypatch.setattr("coopmap.runs.loggers.PatientWandbLogger", Unconnected)
    return codes


class Unconnected(PatientWandbLogger):
    """Writes the folder that W&B would write."""

    def __init__(self, save_dir: str, id: str, **options: object) -> None:
        super().__init__(save_dir=save_dir, id=id, offline=True)
        (Path(save_dir) / "wandb").mkdir()
        self._experiment = MagicMock(spec_set=["id", "config", "log", "define_metric", "summary"], id=id)


def test_a_failed_start_is_over_for_wandb_and_leaves_nothing_of_it(
    ended: list[int], overrides: Overrides, tmp_path: Path
) -> None:
    """Otherwise the next job of a sweep goes into its W&B run."""
    chosen = overrides("logger=offline", "callbacks.validate_at_start=false")
    with pytest.raises(RuntimeError, match="broken"):
        train(load_config(chosen), chosen, [Failing()])
    assert ended == [1]
    assert not list(tmp_path.iterdir())


def test_wandb_hears_of_no_run_that_lightning_refuses(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, overrides: Overrides, tmp_path: Path
) -> None:
    monkeypatch.setattr("coopmap.runs.loggers._start_wandb", lambda *_: pytest.fail("W&B was started"))
    chosen = overrides("logger=offline", "trainer.profiler=none_such")
    with pytest.raises(Exception, match="profiler"):
        train(load_config(chosen), chosen)
    assert not list(tmp_path.iterdir())


def test_who_comes_second_to_a_new_folder_leaves_the_first_ones_files(
    monkeypatch: pytest.MonkeyPatch, overrides: Overrides, tmp_path: Path
) -> None:
    folder, chosen = tmp_path / "runs" / "x", overrides(f"run_dir={tmp_path}/runs/x")

    @contextmanager
    def held_by_another(path: Path, *_: str) -> Iterator[None]:
        """Both have seen that there is no folder yet."""
        path.mkdir(parents=True)
        for name in (".lock", "config.yaml", "train.log"):
            (path / name).write_text("of the first")
        raise ConfigError(f"run_dir={path}: in use by another process")
        yield

    monkeypatch.setattr("coopmap.training.start.held", held_by_another)
    with pytest.raises(ConfigError, match="in use"):
        train(load_config(chosen), chosen)
    assert {file.name: file.read_text() for file in folder.iterdir()} == dict.fromkeys(
        (".lock", "config.yaml", "train.log"), "of the first"
    )


def test_a_run_that_cannot_go_on_where_it_is_is_told_what_works(tmp_path: Path) -> None:
    """No other folder: ``run_dir`` is refused and ``runs_root`` is not looked at when a run is resumed."""
    run = RunFolder(tmp_path / "run")
    (run.path / ".lock").mkdir(parents=True)  # which no process can open for writing, not even root's
    last = run.last_checkpoint
    copy = f"copy the folder and resume the copy, or start a new run from its checkpoint: resume={last}"
    another = "choose another with run_dir=DIR or runs_root=DIR"
    for resume_from, advice in ((None, another), (tmp_path / "other.ckpt", another), (last, copy)):
        with pytest.raises(ConfigError) as caught, held_for_a_run(replace(run, resume_from=resume_from)):
            pass
        assert str(caught.value).startswith(f"run_dir={run.path}: cannot be written (")
        assert str(caught.value).endswith(advice)


OF_V1 = "model.weights=facebook/map-anything-apache-v1, a file or a checkpoint of another run (docs/weights.md)"
OF_TINY = "model.weights=a file or a checkpoint of another run (docs/weights.md)"
LORA, V1 = "optim/train=lora", "model=mapanything_v1"
HEADS = "dense_head, pose_head, scale_head"


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ([], ["mapanything_matching starts from random weights"]),
        (["model.weights=a.pth", LORA], ["starting from the weights a.pth"]),
        (
            [V1, "model.weights=a.pth", "model.weights_only_submodules=[encoder]"],
            ["starting from the weights a.pth (of encoder only)"],
        ),
        (
            [V1],
            [
                "mapanything_v1 starts from random weights",
                f"WARNING: mapanything_v1 takes very long to learn from random weights: set {OF_V1}",
            ],
        ),
        (
            [LORA],
            [
                "mapanything_tiny starts from random weights",
                f"WARNING: optim/train=lora leaves encoder, info_sharing at random weights: set {OF_TINY}",
            ],
        ),
        (
            ["optim/train=heads"],
            [
                "mapanything_tiny starts from random weights",
                f"WARNING: optim/train=heads leaves all but {HEADS} at random weights: set {OF_TINY}",
            ],
        ),
    ],
)
def test_first_lines_say_where_weights_come_from(
    overrides: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(None)
    report_start(load_config(["machine=laptop", *overrides]))
    assert [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()] == lines


@pytest.mark.parametrize("model", ["mapanything_v1", "mapanything_v11"])
def test_released_models_are_large(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    log_to(None)
    report_start(load_config([f"model={model}"]))
    assert "WARNING" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machine", "instead"),
    [
        ("laptop", "on the CPU: preset=demo trains a small model, on your data too"),
        ("local3090", "and take very long to learn: set model.weights=facebook/map-anything-apache-v1, a file"),
    ],
)
def test_a_large_model_without_weights_has_to_be_chosen(
    machine: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopmap.training.start.check_gpus", lambda *_: None)
    monkeypatch.delenv("COOPMAP_WEIGHTS", raising=False)
    own = [f"machine={machine}", "data.root=/data/opv2v"]
    with pytest.raises(ConfigError, match=f"{instead}.*; model=mapanything_v1 confirms it"):
        check_start(load_config(own), own)
    weights = ["model.weights=a.pth"], ["model.weights=null"]
    for meant in (["preset=town"], ["preset=demo"], ["model=mapanything_v1"], ["model.encoder.depth=1"], *weights):
        check_start(load_config([*own, *meant]), [*own, *meant])
    check_start(load_config(own), [])  # from Python
    monkeypatch.setenv("COOPMAP_WEIGHTS", "a.pth")
    if machine == "local3090":
        check_start(load_config(own), own)


def test_the_town_without_depth_is_supervised_by_its_lidar(
    tiny_model: tuple[str, ...], town: TownConfig, tmp_path: Path
) -> None:
    """``data=town data.root=X data.depth_root=null``, on a town of seconds."""
    shape = replace(town, root="", depth_root=None)
    small = [
        f"data.town.{key}={getattr(shape, key)}"
        for key in ("frames", "size_m", "agents_min", "agents_max", "image_scale", "workers")
    ]
    counts = ["data.town.scenarios.train=1", "data.town.scenarios.validate=1", "data.town.scenarios.test=0"]
    chosen = [
        *tiny_model,
        "data=town",
        f"data.root={tmp_path}/X",
        "data.depth_root=null",
        *small,
        *counts,
        f"runs_root={tmp_path}/runs",
        "debug=fast",
    ]
    result = train(load_config(chosen), chosen)
    assert result.trainer.global_step == 2
    assert {path.name for path in tmp_path.iterdir()} == {"X", "runs"}
    assert not list((tmp_path / "X").rglob("*depth*"))
    log = (result.run.path / "train.log").read_text()
    assert "depth: sparse, LiDAR" in log, log


def test_too_few_gpus_are_told_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', 'machine=local3090', 'data.root=/nowhere']\n"
        "from coopmap.train import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 2\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: machine=local3090: no CUDA GPU is visible")
    assert not list(tmp_path.iterdir())
