"""Run folders written by hand."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ODD = "a <script>alert(1)</script> \"b\" 'c' größe"
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes ``tmp_path / "runs" / EXPERIMENT / NAME`` with validations at steps 0, 10 and 20 and rows between."""

    def make(experiment: str, name: str, first: float = 20.0, gps: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "runs" / experiment / name
        folder.mkdir(parents=True)
        rows: list[dict[str, float]] = []
        for number in range(3):
            own = {"step": max(10 * number - 1, 0), "time/steps": 10 * number, "time/wall_s": 60.0 * number}
            own |= {"val/pose_trans_avg": first / (number + 1), "val/trans_m_mean": first - number}
            own |= {"val/baseline_trans_m_mean": 19.5, "val/loss": 4.0 - number, "val/pose_trans_view1": 1.0}
            rows.append(own | {"val/mask_pred_mean": 0.1 * number, "val/mask_true_mean": 0.7})
        for step in (4, 14):
            own = {"step": step, "train/loss": 3.0 - 0.1 * step, "train/pose_trans_avg": 2.0, "lr/encoder": 1e-4}
            rows.append(own | {"lr/pose_head": 1e-3, "time/step_s": 0.5, "time/data_s": 0.1, "train/grad_norm": 3.0})
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (folder / "metrics.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        settings = {"experiment": experiment, "seed": 0, "checkpoint": {"monitor": "val/pose_trans_avg"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        (folder / "starts.json").write_text("[]")
        if gps is not None:
            (folder / "evaluation_val").mkdir()
            (folder / "evaluation_val" / "summary.json").write_text(json.dumps(gps))
        return folder

    return make


@pytest.fixture
def gps() -> dict[str, Any]:
    """What an evaluation says of GPS."""
    errors = {"trans_m": {"mean": 1.5, "median": 1.25}, "rot_deg": {"mean": 0.75, "median": None}}
    return {"split": "val", "methods": {"model": errors, "gps": errors}}
