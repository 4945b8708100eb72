"""The curves of a run: validation, training, learning rates, gradients, time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coopmap.report.pages import literal, write_page
from coopmap.report.palette import BLUE, GRAY, GREEN, LOG_AXIS, ORANGE, VERMILLION, curve_style

if TYPE_CHECKING:
    import plotly.graph_objects as go

MARKED_POINTS = 30
"""Curves with fewer points show markers."""
COLUMNS = 3
PANEL_HEIGHT = 320

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: in the legend; curves of one name share an entry.
        key: of the metric.
        color: of the curve.
        dash: as Plotly calls it.
        level: draw the metric's first value as a level instead.
    """

    name: str
    key: str
    color: str
    dash: str = "solid"
    level: bool = False


def draw_run_curves(rows: Rows) -> go.Figure:
    """A panel per subject over optimizer steps; what a run does not have is left out.

    Args:
        rows: of ``metrics.csv``, each with its ``step``.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    known = dict.fromkeys(name for row in rows for name in row)
    panels = [(title, scale, [line for line in lines if line.key in known]) for title, scale, lines in _panels(known)]
    panels = [panel for panel in panels if panel[2]]
    count = -(-max(len(panels), 1) // COLUMNS)
    figure = make_subplots(rows=count, cols=COLUMNS, horizontal_spacing=0.08, vertical_spacing=0.3 / count**1.2)
    last = max((row["step"] for row in rows), default=0)
    named: set[str] = set()
    for place, (title, scale, lines) in enumerate(panels):
        row, column = place // COLUMNS + 1, place % COLUMNS + 1
        for line in lines:
            steps, values = _points(rows, line, last)
            mode = "lines+markers" if len(steps) < MARKED_POINTS and not line.level else "lines"
            figure.add_trace(
                go.Scatter(
                    x=steps,
                    y=values,
                    name=literal(line.name),
                    mode=mode,
                    line={"dash": line.dash, "color": line.color},
                    legendgroup=line.name,
                    showlegend=line.name not in named,
                ),
                row=row,
                col=column,
            )
            named.add(line.name)
        figure.update_yaxes(title_text=title, row=row, col=column, **(LOG_AXIS if scale == "log" else {}))
        figure.update_xaxes(title_text="optimizer step", row=row, col=column)
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1 + 24 / (PANEL_HEIGHT * count), "x": 0}
    return figure.update_layout(
        height=PANEL_HEIGHT * count + 120, legend=legend, margin={"l": 60, "r": 16, "t": 90, "b": 50}
    )


def _panels(known: Mapping[str, None]) -> Iterator[tuple[str, str, list[Line]]]:
    """Title of the axis, its scale, and the curves."""
    yield "validation pose_trans_avg", "linear", list(_validated("pose_trans_avg"))
    yield "translation error, mean (m)", "linear", list(_validated("trans_m_mean"))
    yield "rotation error, mean (deg)", "linear", list(_validated("rot_deg_mean"))
    for name in ("loss", "pose_trans_avg"):
        yield f"training {name}", "linear", [Line("training", f"train/{name}", VERMILLION)]
    masks = [("predicted mask", "mask_pred_mean", BLUE), ("true mask", "mask_true_mean", GRAY)]
    yield "mean of the mask", "linear", [Line(name, f"val/{key}", color) for name, key, color in masks]
    parts = dict.fromkeys(name.partition("/")[2] for name in known if name.startswith(("lr/", "grad_norm/")))
    styles = {part: curve_style(place) for place, part in enumerate(parts)}
    rates, norms = (
        [Line(part, f"{metric}/{part}", style["color"], style["dash"]) for part, style in styles.items()]
        for metric in ("lr", "grad_norm")
    )
    yield "learning rate", "log", rates
    yield "norm of the gradient", "log", [*norms, Line("all parts", "train/grad_norm", GRAY, "longdash")]
    times = [("step", "step_s", BLUE), ("of that, waiting for data", "data_s", ORANGE)]
    yield "time (s)", "linear", [Line(name, f"time/{key}", color) for name, key, color in times]
    memory = [("device", BLUE), ("host", GREEN), ("loaders", ORANGE)]
    yield "memory (GB)", "linear", [Line(f"{name} memory", f"memory/{name}_gb", color) for name, color in memory]


def _validated(measure: str) -> Iterator[Line]:
    """The model, what it was before training, and the training mean."""
    yield Line("model, validation", f"val/{measure}", BLUE)
    yield Line("before training", f"val/{measure}", VERMILLION, "dash", level=True)
    yield Line("training mean", f"val/baseline_{measure}", GRAY, "dot")


def _points(rows: Rows, line: Line, last: float) -> tuple[list[float], list[float]]:
    points = [(row["step"], row[line.key]) for row in rows if line.key in row]
    if line.level:
        start = [value for step, value in points if step == 0][:1]
        points = [(0, start[0]), (max(last, 1), start[0])] if start else []
    return [step for step, _ in points], [value for _, value in points]


def write_run_curves(rows: Rows, file: Path, title: str) -> None:
    """Write :func:`draw_run_curves` as a self-contained page."""
    write_page(file, "figure.html", title=title, lead="", figure=draw_run_curves(rows))
