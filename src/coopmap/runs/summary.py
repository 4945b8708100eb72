"""Summary of a run: metrics, table, curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coopmap.report.pages import literal, write_page
from coopmap.report.palette import BLUE, COLORS, GRAY, VERMILLION
from coopmap.report.tables import Column, Table, names
from coopmap.report.terminal import print_table
from coopmap.runs.metrics_file import read_metrics

log = logging.getLogger(__name__)

HEADLINES = (
    ("pose_trans_avg", "val/pose_trans_avg", None),
    ("translation error, mean (m)", "val/trans_m_mean", "val/baseline_trans_m_mean"),
    ("translation error, median (m)", "val/trans_m_median", "val/baseline_trans_m_median"),
    ("rotation error, mean (deg)", "val/rot_deg_mean", "val/baseline_rot_deg_mean"),
    ("rotation error, median (deg)", "val/rot_deg_median", "val/baseline_rot_deg_median"),
    ("... of co-visible pairs (m)", "val/covisible_trans_m_median", None),
    ("... of co-visible pairs (deg)", "val/covisible_rot_deg_median", None),
)
"""Label, name of the metric, name of the same metric of the training-mean baseline."""

MARKED_POINTS = 30
"""Curves with fewer points show markers."""


def summarize(entries: Sequence[Mapping[str, float]], best: Mapping[str, float]) -> dict[str, Any]:
    """First, last and best of the headline metrics, and all metrics of these three validations."""
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
    stages = ("first", "last", "best", "training mean")
    columns = [names("validation"), *(Column(stage, key=stage.replace(" ", "_")) for stage in stages)]
    records = [{"validation": label, **summary.get(name.removeprefix("val/"), {})} for label, name, _ in HEADLINES]
    print_table(Table.of_records(title, columns, records))


def warn_if_worse_than_at_first(summary: Mapping[str, Any]) -> None:
    """Warn if training made the model worse than before the first step."""
    figures = summary.get("pose_trans_avg", {})
    first, best = figures.get("first"), figures.get("best")
    if first is not None and best is not None and best > first:
        log.warning(
            "validation pose_trans_avg was %.4g before training and never better than %.4g after: "
            "lower optim.lr, train longer, or freeze parts with optim.lr_of",
            first,
            best,
        )


def write_curves(metrics_csv: Path, file: Path, title: str) -> None:
    """Training and validation curves as one self-contained HTML page."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    rows = read_metrics(metrics_csv)
    known = dict.fromkeys(name for row in rows for name in row)
    panels = (
        ("validation pose_trans_avg", [("model, validation", "val/pose_trans_avg", BLUE)]),
        ("translation error (m)", _with_baseline("trans_m_mean")),
        ("rotation error (deg)", _with_baseline("rot_deg_mean")),
        ("training loss", [("training loss", "train/loss", VERMILLION)]),
        ("training pose_trans_avg", [("training pose_trans_avg", "train/pose_trans_avg", VERMILLION)]),
        (
            "learning rate",
            [
                (name, name, COLORS[place % len(COLORS)])
                for place, name in enumerate(name for name in known if name.startswith("lr/"))
            ],
        ),
    )
    figure = make_subplots(rows=2, cols=3, horizontal_spacing=0.09, vertical_spacing=0.14)
    named: set[str] = set()
    for place, (label, lines) in enumerate(panels):
        row, column = place // 3 + 1, place % 3 + 1
        for name, key, color in lines:
            points = [(each["step"], each[key]) for each in rows if key in each]
            steps, values = zip(*points, strict=True) if points else ((), ())
            line = {"dash": "dot" if key.startswith("val/baseline_") else "solid", "color": color}
            mode = "lines+markers" if len(points) < MARKED_POINTS else "lines"
            group = {"legendgroup": name, "showlegend": bool(points) and name not in named}
            figure.add_trace(
                go.Scatter(x=steps, y=values, name=literal(name), line=line, mode=mode, **group), row=row, col=column
            )
            named.add(name)
        figure.update_yaxes(title_text=label, row=row, col=column)
    figure.update_xaxes(title_text="optimizer step")
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.04, "x": 0}
    figure.update_layout(height=700, legend=legend, margin={"l": 60, "r": 16, "t": 60, "b": 50})
    write_page(file, "figure.html", title=title, lead="", figure=figure)


def _with_baseline(measure: str) -> list[tuple[str, str, str]]:
    return [("model, validation", f"val/{measure}", BLUE), ("training mean", f"val/baseline_{measure}", GRAY)]
