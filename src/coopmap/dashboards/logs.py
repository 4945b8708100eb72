"""What a run's folder holds for a dashboard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopmap.dashboards.panels import GPS_OF
from coopmap.runs.metrics_file import read_metrics
from coopmap.runs.reader import STEPS, Run, same_place

GPS_METHODS = ("prior", "gps")
"""Methods of an evaluation that stand for GPS: the priors that the model was given, or the recorded ones."""


@dataclass(frozen=True)
class RunLog:
    """A run with all of its rows.

    Attributes:
        run: settings and validations.
        label: its name on the page.
        rows: of ``metrics.csv``.
        gps: error of GPS by metric, from an evaluation of the run on its own validation split; empty without one.
    """

    run: Run
    label: str
    rows: Sequence[Mapping[str, float]]
    gps: Mapping[str, float]

    def points(self, key: str) -> list[tuple[float, float]]:
        """Step and value of a metric, finite ones, ascending."""
        found = [(row.get(STEPS, row["step"]), row[key]) for row in self.rows if key in row]
        return sorted((step, value) for step, value in found if math.isfinite(value))

    @property
    def last_step(self) -> float:
        """The last one that was logged."""
        return max((row.get(STEPS, row["step"]) for row in self.rows), default=0.0)


def read_logs(runs: Sequence[Run]) -> list[RunLog]:
    """All that was logged."""
    return [RunLog(run, run.name, read_metrics(run.path / "metrics.csv"), gps_errors(run)) for run in runs]


def gps_errors(run: Run) -> dict[str, float]:
    """Errors of GPS by metric; of the newest evaluation on the run's own validation split that measured it."""
    for file in sorted(_summaries(run), key=lambda file: file.stat().st_mtime, reverse=True):
        summary = _summary(file)
        if summary is None or summary.get("split") != "val" or not _is_of_own_data(summary, run):
            continue
        methods = summary.get("methods", {})
        for method in GPS_METHODS:
            if method in methods:
                errors = {metric: methods[method][error][name] for metric, (error, name) in GPS_OF.items()}
                return {metric: value for metric, value in errors.items() if value is not None}
    return {}


def damaged_summaries(run: Run) -> list[Path]:
    """Of evaluations of a run, those that cannot be read."""
    return sorted(file for file in _summaries(run) if _summary(file) is None)


def _summaries(run: Run) -> Iterable[Path]:
    return run.path.glob("evaluation*/summary.json")


def _summary(file: Path) -> dict[str, Any] | None:
    """What an evaluation measured; ``None`` if the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_of_own_data(summary: Mapping[str, Any], run: Run) -> bool:
    """Whether an evaluation measured the data of the run; older ones tell by what was changed for them alone."""
    if "data_root" in summary:
        return same_place(summary["data_root"], str(run.settings.get("data.root", "")))
    changed = [override.partition("=")[0] for override in summary.get("overrides", [])]
    return not any(key in ("data", "preset") or key.startswith("data.") for key in changed)
