"""Whole runs on the tiny town."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coopmap import load_config
from coopmap.cli.main import main
from coopmap.config import ConfigError
from coopmap.config.compose import from_yaml
from coopmap.runs.checkpoint_io import read_checkpoint
from coopmap.runs.metrics_file import read_metrics
from coopmap.train import train
from coopmap.training.assembly import build_datamodule, trainer_options
from coopmap.training.run import TrainingResult

Overrides = Callable[..., list[str]]


def test_run_folder_is_complete(finished: TrainingResult) -> None:
    files = {str(path.relative_to(finished.run.path)) for path in finished.run.path.rglob("*") if path.is_file()}
    assert "gallery/index.html" in files
    assert {name for name in files if not name.startswith("gallery/")} == {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "curves.html",
        "metrics.csv",
        "metrics.json",
        "model.json",
        "starts.json",
        "train.log",
    }
    log = (finished.run.path / "train.log").read_text()
    assert "depth: dense" in log
    assert "9 steps on 1 process(es), 32-true" in log


def test_a_mistyped_metric_ends_a_run_at_its_first_validation(overrides: Overrides) -> None:
    chosen = overrides("checkpoint.monitor=val/trans_m_men")
    with pytest.raises(ConfigError, match=r"checkpoint\.monitor=val/trans_m_men.*did you mean val/trans_m_mean"):
        train(load_config(chosen), chosen)


def test_of_a_run_that_is_not_validated_at_first_nothing_is_lost_by_a_mistyped_metric(
    overrides: Overrides, tmp_path: Path
) -> None:
    chosen = overrides("trainer.max_epochs=1", "callbacks.validate_at_start=false", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"checkpoint\.monitor=val/foo"):
        train(load_config([*chosen, "checkpoint.monitor=val/foo"]), chosen)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
    goes_on = [f"resume={tmp_path / 'run'}", "checkpoint.monitor=val/trans_m_mean"]
    result = train(load_config(goes_on), goes_on)
    assert result.summary["validations"]["best"]["step"] == result.trainer.global_step == 3


def test_summary_holds_first_last_best_and_the_training_mean(finished: TrainingResult) -> None:
    summary = json.loads(finished.run.metrics_file.read_text())
    validations = summary["validations"]
    assert [validations[name]["step"] for name in ("first", "last")] == [0, 9]
    for name in ("first", "last", "best"):
        assert summary["pose_trans_avg"][name] == validations[name]["val/pose_trans_avg"]
        assert summary["trans_m_mean"][name] == validations[name]["val/trans_m_mean"]
    assert summary["trans_m_mean"]["training_mean"] == validations["last"]["val/baseline_trans_m_mean"]
    assert summary["steps"] == 9


def test_best_is_the_lowest_validation_of_training_and_its_file_gives_it_again(finished: TrainingResult) -> None:
    entries = finished.validations[1:]  # the one at step 0 has no checkpoint
    assert [entry["step"] for entry in entries] == [3, 6, 9]
    lowest = min(entries, key=lambda entry: entry["val/pose_trans_avg"])
    best = finished.summary["validations"]["best"]
    assert best["step"] == lowest["step"] == read_checkpoint(finished.run.best_checkpoint)["global_step"]
    for name, value in lowest.items():
        if not name.startswith("val/recall"):
            assert best[name] == pytest.approx(value, rel=1e-6), name


def test_loss_falls(finished: TrainingResult) -> None:
    rows = read_metrics(finished.run.path / "metrics.csv")
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 9
    assert losses[-1] < losses[0]


def test_metrics_csv_has_rates_times_and_the_zero_shot_line(finished: TrainingResult) -> None:
    rows = read_metrics(finished.run.path / "metrics.csv")
    assert rows[0]["step"] == 0
    assert "val/pose_trans_avg" in rows[0]
    rates = [row["lr/encoder"] for row in rows if "lr/encoder" in row]
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.01 * finished.config.optim.final_lr_fraction)
    assert all(row["time/step_s"] >= row["time/data_s"] >= 0 for row in rows if "time/step_s" in row)
    assert sum("val/pose_trans_avg" in row for row in rows) == 4


def test_checkpoint_carries_configuration_and_revision(finished: TrainingResult) -> None:
    record = read_checkpoint(finished.run.last_checkpoint)["coopmap"]
    assert from_yaml(record["config"]) == finished.config
    assert {"git_revision", "git_dirty"} <= record.keys()
    assert set(record["mean_poses"]) == {1, 2, 3}


def test_curves_need_no_network(finished: TrainingResult) -> None:
    page = (finished.run.path / "curves.html").read_text()
    assert "training mean" in page
    assert "<script src=" not in page.replace('<script src="data:', "")


def test_missing_root_is_one_line_and_status_2_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["train", "preset=town", "data.root=/nowhere/opv2v", "logger=csv"])
    assert caught.value.code == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: /nowhere/opv2v: the dataset root does not exist.")
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.weights=/nowhere.pth", "^model.weights=/nowhere.pth: no such file or folder"),
        ("optim.lr_of.encodr=0", r"optim\.lr_of=encodr: expected one of .* \(did you mean encoder\?\)"),
        ("trainer.accelerator=gpu", "no CUDA GPU is visible; machine=laptop runs on the CPU"),
        ("data.root=", "data.root is not set: give data.root=/path/to/opv2v, or data=town"),
    ],
)
def test_mistakes_end_the_run_before_anything_is_computed(
    override: str, message: str, overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=message):
        train(load_config(overrides(override)))


def test_the_curriculum_takes_its_share_of_the_steps_that_are_trained(overrides: Overrides) -> None:
    narrowing = ("data.sampling.curriculum.distance_m=[30,70]", "data.sampling.curriculum.over=0.5")
    length = ("data.steps_per_epoch=5", "trainer.limit_train_batches=2", "trainer.max_epochs=4")
    order = build_datamodule(load_config(overrides(*narrowing, *length))).train_dataloader().batch_sampler.order
    assert order.curriculum is not None
    assert [order.curriculum(5 * epoch).limits.max_distance_m for epoch in range(4)] == [30, 50, 70, 70]


def test_fast_debug_run_saves_nothing(overrides: Overrides) -> None:
    chosen = overrides("debug=fast")
    result = train(load_config(chosen), chosen)
    assert result.trainer.global_step == 2
    assert not result.run.checkpoints.exists()
    assert not result.run.is_finished


def test_overfit_run_sees_the_same_batches_over_and_over(overrides: Overrides) -> None:
    chosen = overrides("debug=overfit", "trainer.overfit_batches=2", "trainer.max_epochs=3")
    result = train(load_config(chosen), chosen)
    assert result.trainer.global_step == 6
    seen = [
        [(meta.frame, meta.agents) for batch in loader() for meta in batch.metas]
        for loader in (result.datamodule.train_dataloader, result.datamodule.val_dataloader)
    ]
    assert seen[0] == seen[1]


def test_gradients_accumulate_into_one_step(overrides: Overrides) -> None:
    settings = ("data.steps_per_epoch=1", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2")
    chosen = overrides(*settings, "callbacks.validate_at_start=false")
    result = train(load_config(chosen), chosen)
    assert result.trainer.global_step == 2
    assert [entry["step"] for entry in result.validations] == [1, 2]
    assert result.trainer.fit_loop.epoch_loop.total_batch_idx == 5


def test_same_seed_same_run(overrides: Overrides) -> None:
    def final(*more: str) -> torch.Tensor:
        chosen = overrides("trainer.max_epochs=1", "callbacks.validate_at_start=false", *more)
        result = train(load_config(chosen), chosen)
        return torch.cat([parameter.detach().flatten() for parameter in result.module.parameters()])

    first = final()
    assert torch.equal(first, final("data.num_workers=1"))
    assert not torch.equal(first, final("seed=1"))


def test_several_devices_get_ddp_without_buffer_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.strategies import DDPStrategy

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    strategy = trainer_options(load_config(["machine=laptop", "trainer.devices=2"]))["strategy"]
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs["broadcast_buffers"] is False
    assert trainer_options(load_config(["machine=laptop"]))["strategy"] == "auto"
