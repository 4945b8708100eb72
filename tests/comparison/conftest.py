"""Run folders written by hand."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

Rows = Sequence[dict[str, float]]
MakeRun = Callable[..., Path]


def write_run(
    folder: Path,
    rows: Rows,
    settings: dict[str, Any],
    *,
    facts: dict[str, Any] | None = None,
    finished: bool = True,
    start: dict[str, Any] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    start = {"git_revision": "0123456789abcdef", "git_dirty": False, "host": "a"} | (start or {})
    (folder / "starts.json").write_text(json.dumps([start]))
    if facts is not None:
        (folder / "model.json").write_text(json.dumps(facts))
    if finished:
        (folder / "metrics.json").write_text("{}")
    return folder


def validation(steps: int, seconds: float, trans_avg: float, trans_m: float, **more: float) -> dict[str, float]:
    """A row as a run logs it: Lightning's own step is one less from the first step on."""
    own = {"step": max(steps - 1, 0), "time/steps": steps, "time/wall_s": seconds}
    return {**own, "val/pose_trans_avg": trans_avg, "val/trans_m_mean": trans_m, **more}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes ``tmp_path / "runs" / EXPERIMENT / seedN`` (or ``name``) from validations and settings."""

    def make(experiment: str, seed: int, rows: Rows, name: str | None = None, **options: Any) -> Path:
        changes = options.pop("settings", {})
        settings = {"experiment": experiment, "seed": seed, "optim": {"lr": 0.1}, "data": {"root": "/data"}} | changes
        folder = tmp_path / "runs" / experiment / (name or f"seed{seed}")
        return write_run(folder, rows, {**settings, "run_dir": str(folder)}, **options)

    return make
