"""From run folders to a written comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coopmap.comparison.caveats import caveats
from coopmap.comparison.curves import curves
from coopmap.comparison.tables import cost_table, detail_table, figure_rows, measure_table
from coopmap.config import ConfigError
from coopmap.report.files import write_csv, write_text
from coopmap.report.pages import write_page
from coopmap.report.tables import Table
from coopmap.runs.groups import Group, group_runs
from coopmap.runs.outputs import check_output_folder, make_output_folder
from coopmap.runs.reader import common_folder, find_runs, names_of, read_readable_runs

NAMES = ("comparison.html", "comparison.md", "comparison.csv")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        groups: runs that differ in their seed alone.
        warnings: what is not comparable.
        tables: validation metrics, costs, all metrics.
        files: what was written.
    """

    groups: list[Group]
    warnings: list[str]
    tables: list[Table]
    files: list[Path]


def compare(
    places: Sequence[str], output: str | Path | None = None, by: Sequence[str] = (), runs_root: str = "runs"
) -> Comparison:
    """Compare runs, and write the comparison as HTML, Markdown and CSV.

    Args:
        places: run folders, folders that hold runs, patterns for such, or names of runs.
        output: folder to write into; default: ``comparison`` in the folder that holds all the runs.
        by: keys of the configuration that runs are grouped by; default: all but the seed.
        runs_root: folder in which runs are looked up by name.

    Raises:
        ConfigError: no run, none that can be read or with a validation, or ``by`` names no key.
    """
    folders, empty = find_runs(places, runs_root)
    folder = Path(output if output is not None else common_folder(folders or empty) / "comparison")
    check_output_folder("output", folder)
    names = names_of([*folders, *empty])
    found, unreadable = read_readable_runs(folders, names)
    runs = [run for run in found if run.validations]
    without_figures = [names[folder] for folder in empty] + [run.name for run in found if not run.validations]
    if not runs:
        raise ConfigError("; ".join([f"{' '.join(places)}: no run there has a validation yet", *unreadable]))
    groups = group_runs(runs, by)
    warnings = [f"{reason}; left out" for reason in unreadable] + caveats(groups, without_figures, by)
    tables = [measure_table(groups), cost_table(groups), detail_table(groups)]
    folder = make_output_folder(folder)
    html, text, table = files = [folder / name for name in NAMES]
    title = "Comparison of " + ", ".join(dict.fromkeys(run.experiment for run in runs))
    write_page(
        html,
        "comparison.html",
        title=title,
        groups=groups,
        num_runs=len(runs),
        warnings=warnings,
        tables=tables,
        curves=curves(groups),
    )
    write_text(_document(title, warnings, tables), text)
    write_csv(figure_rows(groups), table)
    return Comparison(groups, warnings, tables, files)


def _document(title: str, warnings: Sequence[str], tables: Sequence[Table]) -> str:
    noted = ["## Before you compare\n\n" + "\n".join(f"- {text}" for text in warnings) + "\n"] if warnings else []
    return "\n".join([f"# {title}\n", *noted, *(table.markdown() for table in tables)])
