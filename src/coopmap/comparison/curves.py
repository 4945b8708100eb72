"""Validation figures over steps and over wall time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coopmap.comparison.groups import Group
from coopmap.comparison.tables import all_measures
from coopmap.runs.reader import SECONDS, STEPS, interpolate
from coopmap.runs.summary import HEADLINES

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#6B6B6B")
"""Distinguishable with any color vision (Okabe and Ito, 2008, without yellow and black; two more)."""

REFERENCE_LINE = {"dash": "dot", "color": "#999999", "width": 1}
ROW_HEIGHT = 330

Points = Sequence[tuple[float, float]]


def mean_curve(curves: Sequence[Points]) -> list[tuple[float, float]]:
    """Mean of curves, at every place of any of them that lies within all; between points they are linear."""
    places = sorted({x for curve in curves for x, _ in curve})
    found = []
    for place in places:
        values = [interpolate(curve, place) for curve in curves]
        present = [value for value in values if value is not None]
        if present and len(present) == len(values):
            found.append((place, sum(present) / len(present)))
    return found


def curves_html(groups: Sequence[Group]) -> str:
    """The curves as HTML that needs no network (Plotly's script included)."""
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
        subplot_titles=[label if clock is clocks[0] else "" for label, _, _ in panels for clock in clocks],
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / max(len(panels), 1),
    )
    for row, (_, name, baseline) in enumerate(panels, 1):
        for column, (clock, title, unit) in enumerate(clocks, 1):
            is_first = (row, column) == (1, 1)
            for place, group in enumerate(groups):
                for trace in _traces(group, COLORS[place % len(COLORS)], clock, unit, name, is_first):
                    figure.add_trace(go.Scatter(trace), row=row, col=column)
            if baseline and (values := [run.last[baseline] for run in runs if baseline in run.last]):
                figure.add_hline(sum(values) / len(values), line=REFERENCE_LINE, row=row, col=column)
            figure.update_xaxes(title_text=title, row=row, col=column)
    figure.update_layout(
        template="plotly_white",
        height=ROW_HEIGHT * len(panels) + 60,
        margin={"l": 50, "r": 20, "t": 70, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0 + 60 / (ROW_HEIGHT * max(len(panels), 1)), "x": 0},
        hovermode="closest",
    )
    figure.update_annotations(x=0, xanchor="left", font_size=14, selector={"showarrow": False})
    return figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})


def _traces(group: Group, color: str, clock: str, unit: float, name: str, in_legend: bool) -> list[dict[str, Any]]:
    """Single runs thin, their mean thick, zero-shot dashed."""
    label = group.label.replace("<", "&lt;")  # Plotly reads some HTML
    common = {"mode": "lines", "legendgroup": group.label, "name": label, "showlegend": False}
    curves = {run.name: [(x / unit, y) for x, y in run.points(clock, name)] for run in group.runs}
    mean = mean_curve(list(curves.values()))
    traces: list[dict[str, Any]] = []
    if len(curves) > 1:
        for run, points in curves.items():
            thin = {"color": color, "width": 1}
            text = {"hovertext": run.replace("<", "&lt;"), "opacity": 0.4}
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
