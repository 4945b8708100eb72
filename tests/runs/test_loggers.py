import json
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from coopmap import load_config
from coopmap.runs.loggers import MetricsCsv, PatientWandbLogger, build_loggers, close_loggers
from coopmap.runs.metrics_file import read_metrics


def test_rows_are_on_disk_at_once_and_new_names_add_columns(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"b": 2.0}, step=1)
    logger.log_metrics({"a": 3.0, "b": 4.0}, step=2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "0,1.0,", "1,,2.0", "2,3.0,4.0"]
    assert read_metrics(logger.file)[1] == {"step": 1, "b": 2.0}


def test_continued_log_drops_what_is_computed_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    for step in range(4):
        MetricsCsv(file, start_step=step).log_metrics({"a": float(step)}, step=step)
    MetricsCsv(file, start_step=2).log_metrics({"a": 9.0}, step=2)
    assert [row["a"] for row in read_metrics(file)] == [0.0, 1.0, 9.0]
    MetricsCsv(file).log_metrics({"a": 5.0}, step=0)
    assert [row["a"] for row in read_metrics(file)] == [5.0]


def test_csv_alone_unless_a_key_is_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr("coopmap.runs.loggers._start_wandb", lambda *arguments: started.append(arguments))
    config = load_config(["machine=laptop"])
    build_loggers(config, tmp_path, 0)
    assert not started
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    build_loggers(config, tmp_path, 0)
    assert [arguments[-1] for arguments in started] == [False]  # online
    build_loggers(load_config(["machine=laptop", "logger=offline"]), tmp_path, 0)
    assert started[-1][-1] is True
    started.clear()
    build_loggers(load_config(["machine=laptop", "logger=csv"]), tmp_path, 0)
    assert not started


def test_dead_wandb_at_the_start_leaves_the_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", refuse)
    loggers = build_loggers(load_config(["machine=laptop", "logger=wandb"]), tmp_path, 0)
    assert [type(logger) for logger in loggers] == [MetricsCsv]
    assert "W&B is not available (no route to host)" in caplog.text


def test_wandb_dying_later_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise ConnectionError("gone")

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.log_metrics", fail)
    logger = PatientWandbLogger(project="test", offline=True, save_dir=str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"a": 1.0}, step=1)
    assert len(calls) == 1
    assert caplog.text.count("W&B logging failed (gone)") == 1


@pytest.mark.parametrize("agents_choice", [None, "sweep-run-7"])
def test_resumed_run_keeps_its_wandb_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agents_choice: str | None
) -> None:
    """Its own, or the one that a W&B agent put in its place."""
    ids = []

    class Fake(PatientWandbLogger):
        def __init__(self, **options: object) -> None:
            ids.append(options["id"])
            type(self).experiment = MagicMock(id=agents_choice or options["id"])

    monkeypatch.setattr("coopmap.runs.loggers.PatientWandbLogger", Fake)
    config = load_config(["machine=laptop", "logger=offline"])
    build_loggers(config, tmp_path, 0)
    build_loggers(config, tmp_path, 5)
    assert ids[1] == (agents_choice or ids[0]) == json.loads((tmp_path / "wandb.json").read_text())["id"]


def test_a_server_that_does_not_answer_at_the_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    answer = threading.Event()
    monkeypatch.setattr(wandb, "finish", lambda exit_code: answer.wait())
    monkeypatch.setattr("coopmap.runs.loggers.FINISH_SECONDS", 0.05)
    started = time.monotonic()
    close_loggers([PatientWandbLogger(project="test", offline=True, save_dir=str(tmp_path))])
    answer.set()
    assert time.monotonic() - started < 5
    assert "W&B has not received everything" in caplog.text
