"""The comparison of methods, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from coopmap.evaluation.records import METHODS, PAIR_ERRORS
from coopmap.runs.summary import print_table


def print_methods(summary: Mapping[str, Any], title: str) -> None:
    """Translation and rotation errors of all pairs, method by method."""
    table = Table()
    for column in (f"{summary['pairs']} pairs", "translation (m), mean", "median", "rotation (deg), mean", "median"):
        table.add_column(column, justify="left" if "pairs" in column else "right", no_wrap=True)
    for method, label in METHODS.items():
        if (figures := summary["methods"].get(method)) is not None:
            cells = [[interval(figures[name]), number(figures[name]["median"])] for name in PAIR_ERRORS]
            table.add_row(label, *cells[0], *cells[1])
        elif method in summary["notes"]:
            table.add_row(label, summary["notes"][method])
    for line in summary["published"]:
        table.add_row(f"published: {line['name']}", number(line["trans_m"]), "", number(line["rot_deg"]), "")
    where = summary["frames"]["name"] if summary["frames"] else summary["split"]
    print_table(f"{title}: {where}, {summary['samples']} samples, inputs: {summary['inputs']}", table)


def interval(figure: Mapping[str, Any]) -> str:
    """A mean with its interval: ``6.58 [5.9, 7.3]``."""
    bounds, value = figure["mean_ci95"], number(figure["mean"])
    return value if bounds is None else f"{value} [{number(bounds[0])}, {number(bounds[1])}]"


def number(value: float | None) -> str:
    """Three digits, two below 0.1; a dash where there is nothing."""
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"
