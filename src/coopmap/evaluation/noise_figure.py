"""Error of the prediction over error of the pose priors, as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from coopmap.evaluation.noise import NO_PRIOR, SWEEPS, Outcome
from coopmap.report.pages import literal
from coopmap.report.palette import COLORS, GRAY

Measured = Mapping[str, Sequence[Outcome]]
"""Outcomes by label of their group."""

PANELS = {"trans_m": ("translation", "m", 1), "rot_deg": ("rotation", "deg", 2)}
"""Kind of error: its name, its unit, and the series (besides both together) that has only this noise."""

DASHES, SYMBOLS = ("solid", "dash", "dot"), ("circle", "square", "diamond")
"""By series."""

BETTER = "rgba(0, 158, 115, 0.12)"


def noise_figure(measured: Measured) -> go.Figure:
    """Error out over error in, and below their ratio over the noise, of translation and rotation."""
    figure = make_subplots(rows=2, cols=2, horizontal_spacing=0.08, vertical_spacing=0.16, row_heights=[0.56, 0.44])
    shown: set[str] = set()
    for column, error in enumerate(PANELS, 1):
        _draw_references(figure, error, column, measured)
        for number, (label, outcomes) in enumerate(measured.items()):
            for sweep, name in enumerate(SWEEPS):
                levels = [each for each in outcomes if each.level is not None and name in each.level.sweeps]
                if not any(each.ratio[error] for each in levels):
                    continue
                style = _style(f"{label}: {name}" if len(measured) > 1 else name, number, sweep, len(measured) > 1)
                for row, trace in enumerate(_traces(levels, error, sweep), 1):
                    figure.add_trace(
                        go.Scatter({**trace, **style, "showlegend": style["name"] not in shown}), row, column
                    )
                    shown.add(style["name"])
    return figure.update_layout(
        height=760,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.03, "x": 0},
    )


def _style(name: str, group: int, sweep: int, by_group: bool) -> dict[str, Any]:
    """Colors distinguish groups if there are several, otherwise series."""
    color = COLORS[(group if by_group else sweep) % len(COLORS)]
    return {
        "name": literal(name),
        "legendgroup": name,
        "mode": "lines+markers",
        "cliponaxis": False,
        "line": {"color": color, "dash": DASHES[sweep], "width": 2.5},
        "marker": {"color": color, "symbol": SYMBOLS[sweep], "size": 8},
    }


def _traces(outcomes: Sequence[Outcome], error: str, sweep: int) -> list[dict[str, Any]]:
    """For a series: out over in, and the ratio over the noise if the series has noise of this kind."""
    _, unit, alone = PANELS[error]
    over = [(given.mean, each.answered[error], each) for each in outcomes if (given := each.given[error])]
    traces = [_trace(sorted(over, key=lambda point: point[0]), f"in %{{x:.3g}} {unit}, out %{{y:.3g}} {unit}")]
    if sweep in (0, alone):
        ratios = [(getattr(each.level, error), ratio, each) for each in outcomes if (ratio := each.ratio[error])]
        traces.append(_trace(sorted(ratios, key=lambda point: point[0]), "out / in %{y:.3g}"))
    return traces


def _trace(points: Sequence[tuple[float, Any, Outcome]], text: str) -> dict[str, Any]:
    return {
        "x": [x for x, _, _ in points],
        "y": [spread.mean for _, spread, _ in points],
        "error_y": {"type": "data", "array": [spread.std or 0.0 for _, spread, _ in points], "thickness": 1.2},
        "customdata": [str(each.level) for _, _, each in points],
        "hovertemplate": f"noise %{{customdata}}: {text}",
    }


def _draw_references(figure: go.Figure, error: str, column: int, measured: Measured) -> None:
    """Axes, the line on which the prediction is as good as the prior, and the prediction without a prior."""
    name, unit, _ = PANELS[error]
    outcomes = [each for group in measured.values() for each in group]
    even = {"color": GRAY, "dash": "dash", "width": 1.5}
    end = 1.05 * max((given.mean for each in outcomes if (given := each.given[error])), default=1.0)
    answers = [each.answered[error].mean for each in outcomes if each.level is not None]
    top = 1.08 * max(end, *filter(math.isfinite, answers))
    diagonal = {"x": [0, end], "y": [0, end], "mode": "lines", "line": even}
    label = {"name": "out = in", "legendgroup": "out = in", "showlegend": column == 1, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter({**diagonal, **label, "fill": "tozeroy", "fillcolor": BETTER}), 1, column)
    for number, group in enumerate(measured.values()):
        color = COLORS[number % len(COLORS)] if len(measured) > 1 else GRAY
        for without in (each.answered[error].mean for each in group if each.level is None):
            if without < top:
                note = {"text": NO_PRIOR, "font_color": color, "showarrow": False, "yshift": 9, "xanchor": "left"}
                line = {"color": color, "dash": "dot", "width": 1.5}
                figure.add_hline(without, line=line, annotation={**note, "x": 0.02}, row=1, col=column)
    everywhere = {"row": 2, "col": column, "exclude_empty_subplots": False}
    figure.add_hrect(0, 1, fillcolor=BETTER, line_width=0, layer="below", **everywhere)
    figure.add_hline(1, line=even, **everywhere)
    figure.update_xaxes(title_text=f"{name} error in ({unit})", range=[0, end], row=1, col=column)
    figure.update_yaxes(title_text=f"{name} error out ({unit})", range=[0, top], row=1, col=column)
    figure.update_xaxes(title_text=f"noise ({unit})", rangemode="tozero", row=2, col=column)
    figure.update_yaxes(title_text="out / in", rangemode="tozero", row=2, col=column)
