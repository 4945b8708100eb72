"""Where metrics are written: always ``metrics.csv``, and Weights & Biases on request."""

from __future__ import annotations

import csv
import json
import logging
import os
import secrets
import threading
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from coopmap.config import Config, ConfigError
from coopmap.report.files import naming, write_csv, write_json
from coopmap.runs.folder import set_aside
from coopmap.runs.logs import is_other_rank
from coopmap.runs.metrics_file import read_metrics

log = logging.getLogger(__name__)

FINISH_SECONDS = 60
"""Time that W&B gets for what it has not sent at the end of a run."""


class MetricsCsv(Logger):
    """``metrics.csv``: one row per logged step, flushed at once, continued by a resumed run.

    Rows from ``start_step`` on are dropped: this run writes them again.
    """

    def __init__(self, file: Path, start_step: int = 0) -> None:
        super().__init__()
        self.file = file
        self._columns: list[str] = ["step"]
        self._start_step = start_step
        self._opened = False

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return "csv"

    @property
    def version(self) -> str:
        """There is none: a run has a folder of its own."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Ignored: the run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; an unseen name adds a column."""
        self._open()
        row = {"step": step, **metrics}
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._write(read_metrics(self.file) if self.file.exists() else [])
        with naming(self.file), self.file.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _open(self) -> None:
        if self._opened:
            return
        self._opened = True
        if not self.file.exists():
            return
        try:
            rows = [row for row in read_metrics(self.file) if row["step"] < self._start_step]
        except ConfigError as error:
            log.warning("%s: kept as %s, a new one is begun", error, set_aside(self.file).name)
            return
        self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        self._write(rows)

    def _write(self, rows: list[dict[str, float]]) -> None:
        write_csv([{**row, "step": int(row["step"])} for row in rows], self.file, self._columns)


@contextmanager
def closed_at_the_end(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers after the block; W&B shows a run that it leaves by an exception as failed."""
    try:
        yield
    except BaseException:
        close_loggers(loggers, exit_code=1)
        raise
    close_loggers(loggers)


def close_loggers(loggers: Sequence[Logger], exit_code: int = 0) -> None:
    """End the W&B run; otherwise the next run of a sweep in this process would continue it."""
    if any(isinstance(logger, WandbLogger) for logger in loggers) and not is_other_rank():
        import wandb

        # Its own attempts to reach a server that does not answer have no end.
        finishing = threading.Thread(
            target=wandb.finish, kwargs={"exit_code": exit_code}, name="wandb-finish", daemon=True
        )
        finishing.start()
        finishing.join(FINISH_SECONDS)
        if finishing.is_alive():
            log.warning("W&B has not received everything after %d s; wandb sync sends the rest", FINISH_SECONDS)


class PatientWandbLogger(WandbLogger):
    """W&B that cannot end a run: after the first failure it warns once and stays silent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_dead = False

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log, or disable W&B after a failure."""
        if self._is_dead:
            return
        try:
            super().log_metrics(metrics, step)
        except Exception as error:
            self._is_dead = True
            log.warning("W&B logging failed (%s) and is off; metrics.csv continues", error)


def build_loggers(config: Config, run_dir: Path, start_step: int) -> list[Logger]:
    """CSV always; W&B depending on configuration and environment."""
    loggers: list[Logger] = [MetricsCsv(run_dir / "metrics.csv", start_step)]
    mode = config.logger.mode
    if mode == "auto":
        mode = "wandb" if os.environ.get("WANDB_API_KEY") else "csv"
    if mode != "csv" and (logger := _start_wandb(config, run_dir, mode == "offline")):
        loggers.append(logger)
    return loggers


def _start_wandb(config: Config, run_dir: Path, offline: bool) -> WandbLogger | None:
    """Start W&B on rank 0, or log why not. A resumed run keeps its id."""
    cfg = config.logger
    file = run_dir / "wandb.json"
    if is_other_rank():
        return PatientWandbLogger(project=cfg.project, offline=offline)  # inert on other ranks
    try:
        import wandb

        run_id = json.loads(file.read_text())["id"] if file.exists() else secrets.token_hex(4)
        logger = PatientWandbLogger(
            project=cfg.project,
            entity=cfg.entity,
            group=cfg.group or config.experiment,
            tags=list(cfg.tags),
            name=run_dir.name,
            id=run_id,
            resume="allow",
            save_dir=str(run_dir),
            offline=offline,
            settings=wandb.Settings(init_timeout=60),
        )
        # Connects now, while a failure can still be ignored.
        logger.experiment.config.update(asdict(config), allow_val_change=True)
        # Under a W&B agent, the agent chooses the id.
        write_json({"id": logger.experiment.id, "project": cfg.project, "entity": cfg.entity}, file)
    except Exception as error:
        log.warning("W&B is not available (%s); metrics.csv is written anyway", error)
        return None
    if offline:
        log.info("W&B runs offline; afterwards: wandb sync %s", run_dir / "wandb" / "offline-run-*")
    return logger
