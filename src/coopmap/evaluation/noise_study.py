"""``python -m coopmap.bench priors``: rough poses in, better poses out? Pose errors of both, by level of noise.

Options (key=value):
  runs=FOLDER[,...]     runs that were trained with rough poses: run folders, folders that hold runs, or patterns
  levels=0.5/1,2/4      noise as meters/degrees (standard deviations); default: both together from 0/0 to 5/10, meters
                        alone up to 5, degrees alone up to 10
  by=experiment         put runs together in which these keys are equal; default: in all but the seed
  split=val             val, test, train or test_culvercity
  output=FOLDER         default: priors, in the folder that holds all the runs
  data.*, trainer.*     changes to the stored configurations: data.root=/data/opv2v data.num_workers=8

The best checkpoint of each run answers once at every level and once without rough poses, as in coopmap.evaluate with
priors=noisy. Noise is the same for all runs. Runs that differ in their seed alone are put together. Written are
priors.csv (a row per run and level, as soon as it is known), priors.md and priors.html. Details: docs/evaluation.md.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from coopmap.cli.arguments import split_arguments
from coopmap.comparison.groups import Group, group_runs
from coopmap.config import Config, ConfigError
from coopmap.config.checks import require_choice
from coopmap.config.compose import config_groups
from coopmap.config.evaluate import SPLITS, EvaluateConfig
from coopmap.evaluation.noise import (
    DEFAULT_LEVELS,
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
from coopmap.runs.folder import find_checkpoint
from coopmap.runs.logs import log_to
from coopmap.runs.reader import Run, find_runs, read_run

OWN_KEYS = ("runs", "levels", "by", "split", "output")
SWEPT = ("priors", "priors.agent_pose", "priors.trans_noise_m", "priors.rot_noise_deg")
NAMES = ("priors.csv", "priors.md", "priors.html")
TITLE = "Rough poses in, better poses out?"


@dataclass(frozen=True)
class Options:
    """Options of the command line; see the module's text."""

    runs: tuple[str, ...]
    levels: tuple[Level, ...]
    by: tuple[str, ...] = ()
    split: str = "val"
    output: str | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("runs: expected run folders, as in runs=runs/four_camera (--help lists the options)")
        if not self.levels:
            raise ConfigError("levels: expected meters/degrees, as in levels=0.5/1,2/4")
        require_choice("split", self.split, SPLITS)
        for override in self.overrides:
            if override.partition("=")[0] in SWEPT:
                raise ConfigError(f"{override}: the noise is what is varied here; name it as levels=meters/degrees")

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Options:
        """Read ``key=value`` arguments; keys that are not the program's own are of the configuration.

        Raises:
            ConfigError: naming the argument.
        """
        own, overrides = split_arguments(arguments, OWN_KEYS, _is_override)
        runs, levels, by = (
            [text for text in own.get(key, default).split(",") if text]
            for key, default in (("runs", ""), ("levels", ",".join(DEFAULT_LEVELS)), ("by", ""))
        )
        return cls(
            tuple(runs),
            tuple(dict.fromkeys(map(Level.parse, levels))),
            tuple(by),
            own.get("split", "val"),
            own.get("output"),
            tuple(overrides),
        )


def _is_override(key: str) -> bool:
    return "." in key or key in (*config_groups(), *(field.name for field in fields(Config)))


def find_groups(places: Sequence[str], by: Sequence[str] = ()) -> list[Group]:
    """The runs to measure, put together as :func:`~coopmap.comparison.groups.group_runs` does.

    Raises:
        ConfigError: there is none, or one has no checkpoint or takes no rough poses.
    """
    try:
        folders, without_figures = find_runs(places)
    except ConfigError as error:
        raise ConfigError(f"runs={error}") from None
    if without_figures:
        raise ConfigError(f"runs={without_figures[0]}: this run ended before it had any figures")
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not run.settings.get("model.inputs.pose"):
            raise ConfigError(
                f"runs={run.path}: this model takes no rough poses (model.inputs.pose=false); train one with "
                "priors=noisy (or priors=gps)"
            )
        if not find_checkpoint(str(run.path), None).is_file():
            raise ConfigError(f"runs={run.path}: there is no checkpoint in it")
    return group_runs(runs, by)


def measure(run: Run, level: Level | None, options: Options) -> Measurement:
    """Mean errors of a run's answers, and of the rough poses that it was given.

    Raises:
        ConfigError: there is no pair of agents.
    """
    from coopmap.evaluation.runner import run_evaluation

    given = ["priors=none"]
    if level is not None:
        given = ["priors=noisy", f"priors.trans_noise_m={level.trans_m}", f"priors.rot_noise_deg={level.rot_deg}"]
    with tempfile.TemporaryDirectory(prefix="coopmap-noise-") as folder:
        asked = EvaluateConfig(run=str(run.path), split=options.split, output=folder, icp=False)
        summary = run_evaluation(asked, [*options.overrides, *given]).summary
    errors = {
        method: {error: methods[error]["mean"] for error in PAIR_ERRORS}
        for method, methods in summary["methods"].items()
        if method in ("model", "prior")
    }
    if errors["model"]["trans_m"] is None:
        raise ConfigError(f"split={options.split}: no pair of agents could be measured")
    return Measurement(run, level, errors.get("prior", {}), errors["model"], summary["samples"], summary["pairs"])


def measure_all(
    groups: Sequence[Group], options: Options, file: Path, say: Callable[[str], None] = print
) -> dict[str, list[Measurement]]:
    """Measure every run at every level and without a prior, by label of its group.

    Args:
        groups: of runs.
        options: of the measurement.
        file: gets a row as soon as it is known.
        say: is told what is done.
    """
    steps = list(_steps(groups, options))
    found: dict[str, list[Measurement]] = {}
    writer = RowWriter(file)
    try:
        for number, (group, run, level) in enumerate(steps, 1):
            started = time.monotonic()
            measured = measure(run, level, options)
            found.setdefault(group.label, []).append(measured)
            writer.write([measured.row(group.label)])
            seconds = time.monotonic() - started
            say(f"{number} of {len(steps)}  {group.label}, seed {run.seed}, {_describe(measured)}  ({seconds:.0f} s)")
    finally:
        writer.close()
    return found


def _steps(groups: Sequence[Group], options: Options) -> Iterator[tuple[Group, Run, Level | None]]:
    """Level by level, so that what is there after an interruption compares."""
    for level in (*options.levels, None):
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


def benchmark(options: Options, say: Callable[[str], None] = print) -> tuple[list[Table], list[Path]]:
    """Measure, and write the results; ``say`` is told what is going on.

    Returns:
        A table per group, and the files.
    """
    from coopmap.evaluation.noise_figure import noise_figure

    groups = find_groups(options.runs, options.by)
    shared = Path(os.path.commonpath([run.path.parent for group in groups for run in group.runs]))
    folder = Path(options.output) if options.output is not None else shared / "priors"
    rows, text, page = (folder / name for name in NAMES)
    found = measure_all(groups, options, rows, say)
    measured = {label: outcomes(measurements) for label, measurements in found.items()}
    tables = [noise_table(group, measured[group.label]) for group in groups]
    last = found[groups[0].label][-1]
    changed = f" Changed: {' '.join(options.overrides)}." if options.overrides else ""
    facts = f"Split {options.split}, {last.samples} samples, {last.pairs} pairs of agents.{changed}"
    write_text("\n".join([f"# {TITLE}\n\n{facts}\n", *(table.markdown() for table in tables)]), text)
    write_page(page, "noise.html", title=TITLE, facts=facts, tables=tables, figure=noise_figure(measured))
    return tables, [rows, text, page]


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    options = Options.parse(arguments)
    log_to(None)
    logging.getLogger("coopmap").setLevel(logging.WARNING)  # a line per level is enough
    tables, files = benchmark(options)
    for table in tables:
        print_table(table)
    for file in files:
        print(f"written to {file}")
