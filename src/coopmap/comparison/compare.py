"""From run folders to a written comparison."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coopmap.comparison.caveats import caveats
from coopmap.comparison.curves import curves_html
from coopmap.comparison.groups import Group, group_runs
from coopmap.comparison.page import page
from coopmap.comparison.tables import Table, cost_table, detail_table, markdown, measure_table, write_csv
from coopmap.config import ConfigError
from coopmap.runs.outputs import make_output_folder
from coopmap.runs.reader import find_runs, read_run

NAMES = ("comparison.html", "comparison.md", "comparison.csv")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        groups: runs that differ in their seed alone.
        warnings: what does not compare.
        tables: validation figures, costs, all figures.
        files: what was written.
    """

    groups: list[Group]
    warnings: list[str]
    tables: list[Table]
    files: list[Path]


def compare(places: Sequence[str], output: str | Path | None = None, by: Sequence[str] = ()) -> Comparison:
    """Compare runs, and write the comparison as HTML, Markdown and CSV.

    Args:
        places: run folders, folders that hold runs, or patterns for such.
        output: folder to write into; default: ``comparison`` in the folder that holds all the runs.
        by: keys of the configuration that runs are put together by; default: all but the seed.

    Raises:
        ConfigError: no run, none with a validation, or ``by`` names no key.
    """
    folders, without_figures = find_runs(places)
    runs = []
    for folder in folders:
        run = read_run(folder)
        if run.validations:
            runs.append(run)
        else:
            without_figures.append(folder)
    if not runs:
        raise ConfigError(f"{' '.join(places)}: no run there has a validation yet")
    groups = group_runs(runs, by)
    warnings = caveats(groups, without_figures, by)
    tables = [measure_table(groups), cost_table(groups), detail_table(groups)]
    shared = Path(os.path.commonpath([folder.parent for folder in folders]))
    folder = make_output_folder(output if output is not None else shared / "comparison")
    html, text, table = (folder / name for name in NAMES)
    title = "Comparison of " + ", ".join(dict.fromkeys(run.experiment for run in runs))
    html.write_text(page(title, groups, warnings, tables, curves_html(groups)), encoding="utf-8")
    text.write_text(_document(title, warnings, tables), encoding="utf-8")
    write_csv(groups, table)
    return Comparison(groups, warnings, tables, [html, text, table])


def _document(title: str, warnings: Sequence[str], tables: Sequence[Table]) -> str:
    noted = ["## Before you compare\n\n" + "\n".join(f"- {text}" for text in warnings) + "\n"] if warnings else []
    return "\n".join([f"# {title}\n", *noted, *map(markdown, tables)])
