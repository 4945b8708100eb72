"""Pose priors in, better poses out? Pose errors of both, by level of noise (``coopmap bench priors``)."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coopmap.config import ConfigError
from coopmap.config.evaluate import EvaluateConfig
from coopmap.config.noise import NoiseStudyConfig
from coopmap.evaluation.noise import (
    NO_PRIOR,
    Level,
    Measurement,
    noise_table,
    outcomes,
)
from coopmap.evaluation.records import PAIR_ERRORS, RowWriter
from coopmap.report.files import write_text
from coopmap.report.numbers import DASH
from coopmap.report.pages import write_page
from coopmap.report.tables import Table
from coopmap.report.terminal import print_table
from coopmap.runs.find import find_checkpoint
from coopmap.runs.groups import Group, group_runs
from coopmap.runs.logs import log_to
from coopmap.runs.outputs import check_output_folder
from coopmap.runs.reader import Run, common_folder, find_runs, read_runs

SWEPT = ("priors", "priors.agent_pose", "priors.trans_noise_m", "priors.rot_noise_deg")
NAMES = ("priors.csv", "priors.md", "priors.html")
TITLE = "Pose priors in, better poses out?"


@dataclass(frozen=True)
class Study:
    """What to measure.

    Attributes:
        levels: of noise, each once.
        split: to measure on.
        overrides: of the stored configurations.
    """

    levels: tuple[Level, ...]
    split: str = "val"
    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: NoiseStudyConfig, overrides: Sequence[str] = ()) -> Study:
        """Parse the options.

        Raises:
            ConfigError: a level cannot be read, or an override sets what the study varies.
        """
        for override in overrides:
            if override.partition("=")[0] in SWEPT:
                raise ConfigError(f"{override}: the study varies the noise; set it with levels=meters/degrees")
        return cls(tuple(dict.fromkeys(map(Level.parse, asked.levels))), asked.split, tuple(overrides))


def find_groups(places: Sequence[str], by: Sequence[str] = (), runs_root: str = "runs") -> list[Group]:
    """The runs to measure, grouped as :func:`~coopmap.runs.groups.group_runs` does.

    Raises:
        ConfigError: there is none, or one has no checkpoint or takes no pose priors.
    """
    try:
        folders, without_figures = find_runs(places, runs_root)
    except ConfigError as error:
        raise ConfigError(f"runs={error}") from None
    if without_figures:
        raise ConfigError(f"runs={without_figures[0]}: this run ended before its first metrics")
    runs = read_runs(folders)
    for run in runs:
        if not run.settings.get("model.inputs.pose"):
            raise ConfigError(
                f"runs={run.path}: this model takes no pose priors (model.inputs.pose=false); train one with "
                "priors=noisy (or priors=gps)"
            )
        try:
            find_checkpoint(str(run.path), None)
        except ConfigError as error:
            raise ConfigError(f"runs={run.path}: there is no checkpoint in it") from error
    return group_runs(runs, by)


def measure(run: Run, level: Level | None, study: Study) -> Measurement:
    """Mean errors of a run's predictions, and of the pose priors that it was given.

    Raises:
        ConfigError: there is no pair of agents.
    """
    from coopmap.evaluation.runner import run_evaluation

    given = ["priors=none"]
    if level is not None:
        given = ["priors=noisy", f"priors.trans_noise_m={level.trans_m}", f"priors.rot_noise_deg={level.rot_deg}"]
    with tempfile.TemporaryDirectory(prefix="coopmap-noise-") as folder:
        asked = EvaluateConfig(run=str(run.path), split=study.split, output=folder, baselines=[])
        summary = run_evaluation(asked, [*study.overrides, *given]).summary
    errors = {
        method: {error: methods[error]["mean"] for error in PAIR_ERRORS}
        for method, methods in summary["methods"].items()
        if method in ("model", "prior")
    }
    if errors["model"]["trans_m"] is None:
        raise ConfigError(f"split={study.split}: no pair of agents could be measured")
    return Measurement(run, level, errors.get("prior", {}), errors["model"], summary["samples"], summary["pairs"])


def measure_all(
    groups: Sequence[Group], study: Study, file: Path, say: Callable[[str], None] = print
) -> dict[str, list[Measurement]]:
    """Measure every run at every level and without a prior, by label of its group.

    Args:
        groups: of runs.
        study: what to measure.
        file: gets each row as soon as it is measured.
        say: receives progress messages.
    """
    steps = list(_steps(groups, study))
    found: dict[str, list[Measurement]] = {}
    writer = RowWriter(file)
    try:
        for number, (group, run, level) in enumerate(steps, 1):
            started = time.monotonic()
            measured = measure(run, level, study)
            found.setdefault(group.label, []).append(measured)
            writer.write([measured.row(group.label)])
            seconds = time.monotonic() - started
            say(f"{number} of {len(steps)}  {group.label}, seed {run.seed}, {_describe(measured)}  ({seconds:.0f} s)")
    finally:
        writer.close()
    return found


def _steps(groups: Sequence[Group], study: Study) -> Iterator[tuple[Group, Run, Level | None]]:
    """Level by level, so that an interrupted study is still comparable."""
    for level in (*study.levels, None):
        for group in groups:
            for run in group.runs:
                yield group, run, level


def _describe(measured: Measurement) -> str:
    """``noise 1, 2: 1.99 -> 2.44 m (1.23), ...``."""
    parts = []
    for error, unit in zip(PAIR_ERRORS, ("m", "deg"), strict=True):
        ratio = measured.ratio(error)
        change = "" if not measured.given else f"{measured.given[error]:.3g} -> "
        ending = "" if not measured.given else f" ({DASH if ratio is None else f'{ratio:.2f}'})"
        parts.append(f"{change}{measured.answered[error]:.3g} {unit}{ending}")
    return f"{NO_PRIOR if measured.level is None else f'noise {measured.level}'}: {', '.join(parts)}"


def benchmark(
    asked: NoiseStudyConfig, overrides: Sequence[str] = (), say: Callable[[str], None] = print
) -> tuple[list[Table], list[Path]]:
    """Measure, and write the results; ``say`` receives progress messages.

    Returns:
        A table per group, and the files.

    Raises:
        ConfigError: something requested does not exist or does not fit.
    """
    from coopmap.evaluation.noise_figure import noise_figure

    study = Study.of(asked, overrides)
    groups = find_groups(asked.runs, asked.by, asked.runs_root)
    shared = common_folder(run.path for group in groups for run in group.runs)
    folder = Path(asked.output) if asked.output is not None else shared / "priors"
    check_output_folder("output", folder)
    rows, text, page = (folder / name for name in NAMES)
    found = measure_all(groups, study, rows, say)
    measured = {label: outcomes(measurements) for label, measurements in found.items()}
    tables = [noise_table(group, measured[group.label]) for group in groups]
    last = found[groups[0].label][-1]
    changed = f" Changed: {' '.join(study.overrides)}." if study.overrides else ""
    facts = f"Split {study.split}, {last.samples} samples, {last.pairs} pairs of agents.{changed}"
    write_text("\n".join([f"# {TITLE}\n\n{facts}\n", *(table.markdown() for table in tables)]), text)
    write_page(page, "noise.html", title=TITLE, facts=facts, tables=tables, figure=noise_figure(measured))
    return tables, [rows, text, page]


def main(asked: NoiseStudyConfig, overrides: Sequence[str]) -> None:
    """Command line."""
    log_to(None)
    logging.getLogger("coopmap").setLevel(logging.WARNING)  # a line per level is enough
    tables, files = benchmark(asked, overrides)
    for table in tables:
        print_table(table)
    for file in files:
        print(f"written to {file}")
