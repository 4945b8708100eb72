"""What a run leaves behind for people: figures, table, curves."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coopmap.runs.loggers import read_metrics

log = logging.getLogger(__name__)

HEADLINES = (
    ("pose_trans_avg", "val/pose_trans_avg", None),
    ("translation error, mean (m)", "val/trans_m_mean", "val/baseline_trans_m_mean"),
    ("translation error, median (m)", "val/trans_m_median", "val/baseline_trans_m_median"),
    ("rotation error, mean (deg)", "val/rot_deg_mean", "val/baseline_rot_deg_mean"),
    ("rotation error, median (deg)", "val/rot_deg_median", "val/baseline_rot_deg_median"),
)
"""Label, name of the figure, name of the same figure of always answering with the training mean."""


def summarize(entries: Sequence[Mapping[str, float]], best: Mapping[str, float]) -> dict[str, Any]:
    """First, last and best of the headline figures, and all figures of these three validations."""
    if not entries:
        return {}
    first, last = dict(entries[0]), dict(entries[-1])
    headline = {}
    for _, name, baseline in HEADLINES:
        key = name.removeprefix("val/")
        headline[key] = {"first": first.get(name), "last": last.get(name), "best": best.get(name)}
        if baseline is not None:
            headline[key]["training_mean"] = last.get(baseline)
    return {**headline, "validations": {"first": first, "last": last, "best": dict(best)}}


def print_summary(summary: Mapping[str, Any], title: str) -> None:
    """A table of :func:`summarize`."""
    table = Table()
    for column in ("validation", "first", "last", "best", "training mean"):
        table.add_column(column, justify="left" if column == "validation" else "right")
    for label, name, _ in HEADLINES:
        figures = summary.get(name.removeprefix("val/"), {})
        table.add_row(label, *(_text(figures.get(key)) for key in ("first", "last", "best", "training_mean")))
    print_table(title, table)


def warn_if_worse_than_at_first(summary: Mapping[str, Any]) -> None:
    """Say so when training made the model worse than it was before the first step."""
    figures = summary.get("pose_trans_avg", {})
    first, best = figures.get("first"), figures.get("best")
    if first is not None and best is not None and best > first:
        log.warning(
            "validation pose_trans_avg was %.4g before training and never better than %.4g after: "
            "lower optim.lr, train longer, or freeze parts with optim.lr_of",
            first,
            best,
        )


def print_table(title: str, table: Table) -> None:
    """A table below a title; 100 columns wide where output is no terminal."""
    print(title)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def write_json(content: Mapping[str, Any], file: Path) -> None:
    """Write via a temporary file; NaN becomes null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(_without_nan(content), indent=2) + "\n")
    temporary.replace(file)


def _without_nan(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and node != node else node


def write_curves(metrics_csv: Path, file: Path, title: str) -> None:
    """Training and validation curves as one self-contained HTML page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows = read_metrics(metrics_csv)
    names = dict.fromkeys(name for row in rows for name in row)
    panels = (
        ("validation pose_trans_avg", [("model", "val/pose_trans_avg")]),
        ("translation error (m)", [("model", "val/trans_m_mean"), ("training mean", "val/baseline_trans_m_mean")]),
        ("rotation error (deg)", [("model", "val/rot_deg_mean"), ("training mean", "val/baseline_rot_deg_mean")]),
        ("training loss", [("loss", "train/loss")]),
        ("training pose_trans_avg", [("pose_trans_avg", "train/pose_trans_avg")]),
        ("learning rate", [(name.removeprefix("lr/"), name) for name in names if name.startswith("lr/")]),
    )
    figure = make_subplots(rows=2, cols=3, subplot_titles=[panel for panel, _ in panels])
    for place, (_, lines) in enumerate(panels):
        for label, name in lines:
            points = [(row["step"], row[name]) for row in rows if name in row]
            line = {"dash": "dot", "color": "gray"} if label == "training mean" else {}
            steps, values = zip(*points, strict=True) if points else ((), ())
            trace = go.Scatter(x=steps, y=values, name=label, line=line, showlegend=False)
            figure.add_trace(trace, row=place // 3 + 1, col=place % 3 + 1)
    figure.update_layout(title=title, template="plotly_white", height=700)
    figure.write_html(file, include_plotlyjs=True)
