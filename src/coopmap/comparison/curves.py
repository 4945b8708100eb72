"""Validation metrics over steps and over wall time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coopmap.comparison.tables import all_measures
from coopmap.report.pages import literal
from coopmap.report.palette import COLORS, GRAY
from coopmap.runs.groups import Group
from coopmap.runs.reader import SECONDS, STEPS, interpolate
from coopmap.runs.summary import HEADLINES

if TYPE_CHECKING:
    import plotly.graph_objects as go

REFERENCE_LINE = {"dash": "dot", "color": GRAY, "width": 1}
ROW_HEIGHT = 330

Points = Sequence[tuple[float, float]]


def mean_curve(curves: Sequence[Points]) -> list[tuple[float, float]]:
    """Mean of curves, at every position of any of them that all cover; interpolated linearly."""
    places = sorted({x for curve in curves for x, _ in curve})
    found = []
    for place in places:
        values = [interpolate(curve, place) for curve in curves]
        present = [value for value in values if value is not None]
        if present and len(present) == len(values):
            found.append((place, sum(present) / len(present)))
    return found


def curves(groups: Sequence[Group]) -> go.Figure:
    """A row per headline metric, a column per clock; every axis is labeled."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    runs = [run for group in groups for run in group.runs]
    names = all_measures(runs)
    panels = [(label, name, baseline) for label, name, baseline in HEADLINES if name in names]
    clocks = [(STEPS, "step", 1.0), (SECONDS, "wall time (min)", 60.0)]
    clocks = [clock for clock in clocks if any(clock[0] in run.last for run in runs)]
    figure = make_subplots(
        rows=len(panels),
        cols=len(clocks),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / max(len(panels), 1),
    )
    for row, (label, name, baseline) in enumerate(panels, 1):
        figure.update_yaxes(title_text=label, row=row, col=1)
        for column, (clock, title, unit) in enumerate(clocks, 1):
            is_first = (row, column) == (1, 1)
            for place, group in enumerate(groups):
                for trace in _traces(group, COLORS[place % len(COLORS)], clock, unit, name, is_first):
                    figure.add_trace(go.Scatter(trace), row=row, col=column)
            if baseline and (values := [run.last[baseline] for run in runs if baseline in run.last]):
                figure.add_hline(sum(values) / len(values), line=REFERENCE_LINE, row=row, col=column)
            figure.update_xaxes(title_text=title, row=row, col=column)
    figure.update_layout(
        height=ROW_HEIGHT * len(panels) + 60,
        margin={"l": 50, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0 + 60 / (ROW_HEIGHT * max(len(panels), 1)), "x": 0},
        hovermode="closest",
    )
    return figure


def _traces(group: Group, color: str, clock: str, unit: float, name: str, in_legend: bool) -> list[dict[str, Any]]:
    """Single runs thin, their mean thick, zero-shot dashed."""
    label = literal(group.label)
    common = {"mode": "lines", "legendgroup": group.label, "name": label, "showlegend": False}
    curves = {run.name: [(x / unit, y) for x, y in run.points(clock, name)] for run in group.runs}
    mean = mean_curve(list(curves.values()))
    traces: list[dict[str, Any]] = []
    if len(curves) > 1:
        for run, points in curves.items():
            thin = {"color": color, "width": 1}
            text = {"hovertext": literal(run), "opacity": 0.4}
            traces.append({**common, **_xy(points), "line": thin, **text})
    thick = {"color": color, "width": 2.5}
    mode = "lines+markers" if len(curves) == 1 else "lines"
    traces.append({**common, **_xy(mean), "line": thick, "mode": mode, "showlegend": in_legend})
    zero_shot = group.spread(lambda run: run.zero_shot.get(name))
    ends = [points[-1][0] for points in curves.values() if points]
    if zero_shot and ends:
        dashed = {"color": color, "width": 1, "dash": "dash"}
        text = {"hovertext": f"{label}, before training"}
        traces.append({**common, **_xy([(0, zero_shot.mean), (max(ends), zero_shot.mean)]), "line": dashed, **text})
    return traces


def _xy(points: Points) -> dict[str, list[float]]:
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}
