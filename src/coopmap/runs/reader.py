"""Finished and unfinished runs, read from their folders."""

from __future__ import annotations

import glob
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import Any

from coopmap.config import ConfigError
from coopmap.config.stored_text import stored_mapping
from coopmap.runs.find import find_run
from coopmap.runs.metrics_file import read_metrics
from coopmap.runs.texts import read_text

STEPS, SECONDS = "time/steps", "time/wall_s"
"""Columns of the two clocks that are logged with every validation."""
DEBUG_FOLDER = "debug"
"""Where runs of ``debug=`` go, ``runs/debug``: no results beside others."""

Validation = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """The content of a run folder.

    Attributes:
        path: the folder.
        name: the last parts of its path, as many as :func:`names_of` needs to tell it from others.
        settings: the resolved configuration, by dotted key.
        validations: metrics of every validation with both clocks, in order.
        starts: command, revision and host of every start.
        facts: content of ``model.json``; empty for runs that have none.
        step_seconds: median of the logged times per step, ``None`` without any.
        is_finished: training ran to completion.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    validations: Sequence[Validation]
    starts: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
    step_seconds: float | None
    is_finished: bool

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.settings.get("experiment", self.path.parent.name))

    @property
    def seed(self) -> Any:
        """Its seed."""
        return self.settings.get("seed")

    @cached_property
    def zero_shot(self) -> Validation:
        """Metrics before the first step; empty if they were not measured."""
        return next((entry for entry in self.validations if entry[STEPS] == 0), {})

    @cached_property
    def best(self) -> Validation:
        """Metrics of the best checkpoint: where the monitored metric is lowest, which is no NaN. Step 0 has none."""
        monitor = self.settings.get("checkpoint.monitor", "val/pose_trans_avg")
        trained = [entry for entry in self.validations if entry[STEPS] > 0 and not isnan(entry.get(monitor, nan))]
        return min(trained, key=lambda entry: entry[monitor], default={})

    @cached_property
    def last(self) -> Validation:
        """Metrics of the last validation."""
        return self.validations[-1]

    def points(self, clock: str, measure: str) -> list[tuple[float, float]]:
        """Values of a metric along a clock, :data:`STEPS` or :data:`SECONDS`."""
        return [(entry[clock], entry[measure]) for entry in self.validations if clock in entry and measure in entry]

    def value_at(self, clock: str, time: float, measure: str) -> float | None:
        """Value at a time, linear between two validations; ``None`` outside of them."""
        return interpolate(self.points(clock, measure), time)


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """Value at ``x``, linear between neighbors; ``None`` outside."""
    for place, (right, value) in enumerate(points):
        if right == x:
            return value
        if right > x:
            if place == 0:
                return None
            left, before = points[place - 1]
            return before + (value - before) * (x - left) / (right - left)
    return None


def find_runs(arguments: Sequence[str], runs_root: str = "runs") -> tuple[list[Path], list[Path]]:
    """Run folders among and below the arguments.

    Args:
        arguments: folders, patterns that the shell did not expand, or names (see :func:`coopmap.runs.find.find_run`).
        runs_root: folder in which runs are looked up by name.

    Returns:
        Folders of runs that have metrics, each once, and of those that ended before they had any.

    Raises:
        ConfigError: an argument leads to no run.
    """
    folders: dict[Path, bool] = {}
    for argument in arguments:
        is_place = bool(argument) and Path(argument).exists()
        places = [Path(argument)] if is_place else [Path(place) for place in sorted(glob.glob(argument))]
        places = places or [find_run(argument, runs_root, key="").path]
        found = {folder.resolve(): has for place in places for folder, has in _runs_below(place)}
        if not found:
            raise ConfigError(
                f"{argument}: holds no run; a run folder has config.yaml and metrics.csv (runs/EXPERIMENT/RUN)"
            )
        folders |= found
    return [folder for folder, has in folders.items() if has], [folder for folder, has in folders.items() if not has]


def common_folder(runs: Iterable[Path]) -> Path:
    """The folder that holds all the runs."""
    return Path(os.path.commonpath([run.parent for run in runs]))


def _runs_below(place: Path) -> Iterator[tuple[Path, bool]]:
    """Run folders, and whether they have metrics; those of ``debug=`` only if their folder is the place."""
    for folder, below, files in os.walk(place):
        below[:] = sorted(name for name in below if name != DEBUG_FOLDER)
        if "train.log" in files or {"config.yaml", "metrics.csv"} <= set(files):
            yield Path(folder), {"config.yaml", "metrics.csv"} <= set(files)
            below.clear()


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """A name for each run folder: the experiment's folder and the run's, and those before where two have the same."""
    return {folder: str(Path(*folder.parts[-_parts_needed(folder, folders) :])) for folder in folders}


def _parts_needed(folder: Path, folders: Sequence[Path]) -> int:
    needed = 2
    for other in folders:
        if other != folder:
            pairs = zip(reversed(folder.parts), reversed(other.parts), strict=False)
            needed = max(needed, 1 + next((same for same, (one, two) in enumerate(pairs) if one != two), 0))
    return needed


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders; see :func:`read_run`."""
    return [read_run(folder, name) for folder, name in names_of(folders).items()]


def read_readable_runs(folders: Sequence[Path], names: Mapping[Path, str]) -> tuple[list[Run], list[str]]:
    """Read run folders, of which some may be damaged.

    Args:
        folders: to read.
        names: of the folders, see :func:`names_of`.

    Returns:
        Runs, and of every folder that cannot be read the reason, which names it.

    Raises:
        ConfigError: none of them can be read.
    """
    runs: list[Run] = []
    reasons: list[str] = []
    for folder in folders:
        try:
            runs.append(read_run(folder, names[folder]))
        except ConfigError as error:
            reasons.append(str(error))
    if reasons and not runs:
        raise ConfigError("; ".join(reasons))
    return runs, reasons


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read one run folder.

    Args:
        folder: to read.
        name: to tell it from others; without, its own and its experiment's.

    Raises:
        ConfigError: a file in it cannot be read.
    """
    try:
        rows = read_metrics(folder / "metrics.csv")
        settings = read_settings(folder / "config.yaml")
        starts, facts = _json(folder / "starts.json", []), _json(folder / "model.json", {})
    except ConfigError as error:
        raise ConfigError(f"{folder}: cannot be read as a run: {error}") from None
    validations = [
        {STEPS: row["step"], **row} for row in rows if any(name.startswith("val/") for name in row)
    ]  # runs without this clock have Lightning's, which is one lower after the first step
    steps = [row["time/step_s"] for row in rows if "time/step_s" in row]
    return Run(
        path=folder,
        name=name or names_of([folder])[folder],
        settings=settings,
        validations=sorted(validations, key=lambda entry: entry[STEPS]),
        starts=starts,
        facts=facts,
        step_seconds=statistics.median(steps) if steps else None,
        is_finished=(folder / "metrics.json").is_file(),
    )


def read_settings(file: Path) -> dict[str, Any]:
    """A stored configuration by dotted key, unchecked: also of runs that an older version of the program made.

    Raises:
        ConfigError: the file is empty, cut off or damaged.
    """
    try:
        return flatten(stored_mapping(read_text(file)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{file}: empty, cut off or damaged ({error})") from None


def _json(file: Path, default: Any) -> Any:
    try:
        return json.loads(read_text(file)) if os.path.lexists(file) else default
    except (OSError, ValueError, RecursionError) as error:  # JSON's errors are ValueErrors
        raise ConfigError(f"{file}: empty, cut off or damaged ({error})") from None


def same_place(one: str, other: str) -> bool:
    """Whether two values of ``data.root`` lead to the same folder."""
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
