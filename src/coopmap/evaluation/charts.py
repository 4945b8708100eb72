"""The charts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from coopmap.evaluation.records import METHODS, SampleRecord
from coopmap.evaluation.summary import PairTable, applied_to, method_column
from coopmap.report.pages import literal
from coopmap.report.palette import BLUE, GRAY, GREEN, ORANGE, PINK, PURPLE, SKY, VERMILLION

METHOD_COLORS = {
    "model": BLUE,
    "refined": PURPLE,
    "chosen": PURPLE,
    "prior": PINK,
    "training_mean": GRAY,
    "gps": VERMILLION,
    "gps_icp": GREEN,
    "matching_rig": ORANGE,
    "matching": ORANGE,
    "xfeat_rig": ORANGE,
    "xfeat": ORANGE,
    "bound_own_ranges": SKY,
    "bound_own_matches": SKY,
    "bound": SKY,
}
DASHES = {
    "chosen": "dash",
    "prior": "dash",
    "training_mean": "dot",
    "gps": "dash",
    "gps_icp": "dash",
    "matching_rig": "dot",
    "matching": "dash",
    "xfeat_rig": "longdashdot",
    "xfeat": "longdash",
    "bound_own_ranges": "dash",
    "bound_own_matches": "dashdot",
    "bound": "dot",
}
AXES = {"trans_m": "translation error (m)", "rot_deg": "rotation error (deg)"}


def error_distribution(records: Sequence[SampleRecord]) -> go.Figure:
    """Cumulative distribution of the errors of all pairs, for each method; below 100 % where it has no answer."""
    pairs = PairTable(records)
    applied = applied_to(records, pairs)
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.08)
    for place, (column, title) in enumerate(AXES.items(), start=1):
        for method, label in METHODS.items():
            values = pairs.columns.get(method_column(method, column))
            if values is None or not np.isfinite(values).any():
                continue
            errors = np.sort(values[np.isfinite(values)])
            line = {
                "color": METHOD_COLORS[method],
                "width": 3 if method == "model" else 2,
                "dash": DASHES.get(method, "solid"),
            }
            share = np.arange(1, len(errors) + 1) / applied[method].sum()
            name = {"name": label, "legendgroup": method, "showlegend": place == 1}
            x = np.maximum(errors, 1e-4)
            figure.add_trace(go.Scatter(x=x, y=share, mode="lines", line=line, line_shape="hv", **name), 1, place)
        figure.update_xaxes(title=title, type="log", dtick=1, row=1, col=place)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(title="share of pairs", col=1)
    return _styled(figure, 400)


def error_by_circumstance(breakdown: Mapping[str, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """Mean error with its interval and median, by kind of pair."""
    widths = [max(2, sum(row["pairs"] > 0 for row in rows)) for rows in breakdown.values()]
    figure = make_subplots(
        rows=2, cols=len(breakdown), vertical_spacing=0.16, horizontal_spacing=0.055, column_widths=widths
    )
    for column, (subject, rows) in enumerate(breakdown.items(), start=1):
        for place, (error, title) in enumerate(AXES.items(), start=1):
            filled = [row for row in rows if row["pairs"] and row[error]["count"]]  # infinite ones stay blank
            labels = [f"{literal(row['bin']).replace(': ', '<br>')}<br>n={row['pairs']}" for row in filled]
            means = [row[error]["mean"] for row in filled]
            bounds = [row[error]["mean_ci95"] or (mean, mean) for row, mean in zip(filled, means, strict=True)]
            whiskers = {
                "type": "data",
                "symmetric": False,
                "array": [high - mean for (_, high), mean in zip(bounds, means, strict=True)],
                "arrayminus": [mean - low for (low, _), mean in zip(bounds, means, strict=True)],
                "color": GRAY,
                "thickness": 1.2,
            }
            first = column == place == 1
            bars = go.Bar(x=labels, y=means, error_y=whiskers, name="mean", marker_color=SKY, showlegend=first)
            bars.width = min(0.8, 0.15 + 0.15 * len(filled))
            middles = [row[error]["median"] for row in filled]
            medians = go.Scatter(
                x=labels,
                y=middles,
                name="median",
                mode="markers",
                marker={"color": VERMILLION, "size": 9, "symbol": "diamond"},
                showlegend=first,
            )
            figure.add_trace(bars, place, column)
            figure.add_trace(medians, place, column)
            title_below = subject if place == len(AXES) else None
            figure.update_xaxes(title=title_below, type="category", tickangle=0, row=place, col=column)
            known = [value for value in (*(high for _, high in bounds), *middles) if np.isfinite(value)]
            top = 1.08 * max(known, default=1.0)
            figure.update_yaxes(title=title if column == 1 else None, range=[0, top], row=place, col=column)
    return _styled(figure, 620)


def confidence_charts(confidence: Mapping[str, Any]) -> go.Figure:
    """Risk over coverage, and what came true over what was expected."""
    titles = ("error of the pairs that are kept", "reliability")
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1, subplot_titles=titles)
    kept = confidence["risk_coverage"]
    share = [row["coverage"] for row in kept]
    for name, label, color in (("trans_m_median", "median", BLUE), ("trans_m_p90", "90th percentile", SKY)):
        errors = [row[name] for row in kept]
        figure.add_trace(go.Scatter(x=share, y=errors, name=label, mode="lines+markers", line_color=color), 1, 1)
    for what, color in (("confidence", VERMILLION), ("co-visibility", GREEN)):
        rows = [row for row in confidence["reliability"] if row["of"] == what]
        figure.add_trace(
            go.Scatter(
                x=[row["expected"] for row in rows],
                y=[row["observed"] for row in rows],
                customdata=[row["pairs"] for row in rows],
                hovertemplate="expected %{x:.0%}, observed %{y:.0%}, %{customdata} pairs",
                name=what,
                mode="lines+markers",
                line_color=color,
            ),
            1,
            2,
        )
    ideal = {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": {"color": GRAY, "dash": "dot"}}
    figure.add_trace(go.Scatter(**ideal, name="as expected"), 1, 2)
    figure.update_xaxes(
        title="share of pairs kept, the most confident", tickformat=".0%", range=[0, 1.02], row=1, col=1
    )
    figure.update_yaxes(title=AXES["trans_m"], rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title="expected", tickformat=".0%", range=[-0.02, 1.02], row=1, col=2)
    figure.update_yaxes(title="observed", tickformat=".0%", range=[-0.02, 1.02], row=1, col=2)
    return _styled(figure, 420).update_layout(legend_y=1.08, margin_t=70)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    margin = {"l": 60, "r": 16, "t": 36, "b": 48}
    return figure.update_layout(height=height, legend=legend, margin=margin)
