"""Runs of a sweep, compared through the public commands."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import compare as program
from coopmap.runs.metrics_file import read_metrics
from coopmap.training.run import TrainingResult


def test_a_run_records_what_a_comparison_needs(finished: TrainingResult) -> None:
    facts = json.loads((finished.run.path / "model.json").read_text())
    parameters = sum(parameter.numel() for parameter in finished.module.model.parameters())
    assert facts["parameters"] == facts["trained_parameters"] == parameters
    assert facts["multi_view_tokens"] == facts["views"] * 2 * 8
    assert facts["training_flops"] > 2 * facts["forward_flops"] > 0
    rows = [row for row in read_metrics(finished.run.path / "metrics.csv") if "val/pose_trans_avg" in row]
    assert [row["time/steps"] for row in rows] == [0, 3, 6, 9]
    clock = [row["time/wall_s"] for row in rows]
    assert clock[0] == 0
    assert clock == sorted(clock)
    assert clock[-1] < finished.summary["seconds"]


@pytest.mark.slow
def test_sweep_over_experiments_and_seeds_is_compared(
    overrides: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    swept = ["experiment=cyl_posefix,cyl_baseline", "seed=0,1", "trainer.max_epochs=1", "data.max_val_frames=1"]
    swept += ["data.steps_per_epoch=1", "callbacks.validate_at_start=false"]
    command = [sys.executable, "-m", "coopmap.train", "-m", *overrides(*swept)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = {path.name: sorted(path.iterdir()) for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert {name: len(runs) for name, runs in folders.items()} == {"cyl_posefix": 2, "cyl_baseline": 2}

    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "runs"), f"output={tmp_path / 'out'}"])
    program.main()
    assert "unfinished" not in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    wanted = {"group": "cyl_posefix", "at": "last validation (step 1)", "figure": "val/trans_m_mean"}
    (row,) = (row for row in rows if wanted.items() <= row.items())
    summaries = [json.loads((run / "metrics.json").read_text()) for run in folders["cyl_posefix"]]
    values = [summary["trans_m_mean"]["last"] for summary in summaries]
    assert (row["n"], row["seeds"]) == ("2", "0 1")
    assert float(row["mean"]) == pytest.approx(sum(values) / 2, rel=1e-6)
    assert float(row["std"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5, rel=1e-4, abs=1e-6)
