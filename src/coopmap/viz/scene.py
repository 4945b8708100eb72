"""An interactive page of a point cloud and its cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from coopmap.geometry.se3_numpy import transform_points
from coopmap.report.pages import literal, write_page
from coopmap.report.palette import BLUE, COLORS, GRAY, GREEN, PINK, VERMILLION

if TYPE_CHECKING:
    import plotly.graph_objects as go

AXIS_COLORS = {"right": VERMILLION, "down": GREEN, "forward": BLUE}
SCENE_HEIGHT = 760
"""Pixels."""
SHOWN_QUANTILES = 5, 95
"""Percentiles of the points that the axes span, so that a few far ones do not shrink the rest to a dot."""


def draw_scene(
    points: Float[np.ndarray, "n 3"],
    colors: UInt8[np.ndarray, "n 3"],
    pose: Float[np.ndarray, "v 4 4"],
    names: Sequence[str],
    corners: Float[np.ndarray, "v 4 3"] | None = None,
    true_pose: Float[np.ndarray, "v 4 4"] | None = None,
) -> go.Figure:
    """Point cloud, a set of axes for every view (and a frustum for perspective ones), names; meters, upright.

    Args:
        points: in the frame of view 0, OpenCV axes.
        colors: of the points, RGB.
        pose: ``T_view0_view``.
        names: of the views.
        corners: rays through the corners of perspective views, in order around the image.
        true_pose: ground truth, drawn as open diamonds.
    """
    import plotly.graph_objects as go

    low, high = _extent(points, pose if true_pose is None else np.concatenate([pose, true_pose]))
    size = 0.06 * float(np.max(high - low))
    inside = ((points >= low) & (points <= high)).all(-1)
    traces = [_cloud(points[inside], colors[inside]), *_axes(pose, size)]
    if corners is not None:
        traces.append(_frusta(pose, corners, size))
    traces.append(_views(pose, names))
    if true_pose is not None and len(true_pose) > 1:
        traces += _truth(pose, true_pose, names)
    figure = go.Figure(traces)
    figure.update_layout(
        legend={"itemsizing": "constant"},
        margin={"l": 0, "r": 0, "b": 0, "t": 0},
        height=SCENE_HEIGHT,
        scene=_box(low, high),
    )
    return figure


def _cloud(points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"]) -> go.Scatter3d:
    import plotly.graph_objects as go

    return go.Scatter3d(
        **_upright(points),
        mode="markers",
        marker={"size": 1.5, "color": [f"rgb({r},{g},{b})" for r, g, b in colors.tolist()]},
        name="points",
        hoverinfo="skip",
    )


def _axes(pose: Float[np.ndarray, "v 4 4"], size: float) -> list[go.Scatter3d]:
    """Right, down and forward of every view, ``size`` meters long."""
    import plotly.graph_objects as go

    traces = []
    for axis, (label, color) in enumerate(AXIS_COLORS.items()):
        line = _upright(_segments(pose[:, :3, 3], pose[:, :3, 3] + size * pose[:, :3, axis]))
        traces.append(go.Scatter3d(**line, mode="lines", line={"color": color, "width": 5}, name=label))
    return traces


def _views(pose: Float[np.ndarray, "v 4 4"], names: Sequence[str]) -> go.Scatter3d:
    """Positions with names."""
    import plotly.graph_objects as go

    return go.Scatter3d(
        **_upright(pose[:, :3, 3]),
        mode="markers+text",
        marker={"size": 5, "color": [COLORS[i % len(COLORS)] for i in range(len(pose))]},
        text=[literal(name) for name in names],
        textposition="top center",
        textfont={"size": 13},
        name="views",
    )


def _truth(
    pose: Float[np.ndarray, "v 4 4"], true_pose: Float[np.ndarray, "v 4 4"], names: Sequence[str]
) -> list[go.Scatter3d]:
    """True positions of all views but the reference, and lines from the predicted ones to them."""
    import plotly.graph_objects as go

    positions = go.Scatter3d(
        **_upright(true_pose[1:, :3, 3]),
        mode="markers",
        marker={"size": 6, "symbol": "diamond-open", "color": PINK},
        text=[f"{literal(name)}, true position" for name in names[1:]],
        name="true positions",
    )
    errors = _upright(_segments(pose[1:, :3, 3], true_pose[1:, :3, 3]))
    return [positions, go.Scatter3d(**errors, mode="lines", line={"color": PINK, "width": 1}, name="errors")]


def _box(low: Float[np.ndarray, " 3"], high: Float[np.ndarray, " 3"]) -> dict[str, Any]:
    """Axes in meters with one scale, seen from behind and above."""
    span = dict(zip("xyz", _upright(np.stack([low, high])).values(), strict=True))
    axes = {
        f"{axis}axis": {"title": name, "range": sorted(span[axis].tolist())}
        for axis, name in zip("xyz", ("right (m)", "forward (m)", "up (m)"), strict=True)
    }
    camera = {"eye": {"x": 0.0, "y": -1.2, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.15}}
    return {**axes, "aspectmode": "manual", "aspectratio": _aspect(span), "camera": camera}


def write_scene(figure: go.Figure, title: str, file: Path) -> None:
    """Write a self-contained page."""
    lead = "Drag to turn, scroll to zoom. Meters, in the frame of the first view."
    write_page(file, "figure.html", title=title, lead=lead, figure=figure)


def _upright(points: Float[np.ndarray, "n 3"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Right, forward and up of OpenCV's right, down and forward."""
    return {"x": points[:, 0], "y": points[:, 2], "z": -points[:, 1]}


def _extent(
    points: Float[np.ndarray, "n 3"], pose: Float[np.ndarray, "v 4 4"]
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
    """Box around all views and nearly all points, with a margin."""
    corners = [pose[:, :3, 3]]
    if len(points):
        corners.append(np.percentile(points, SHOWN_QUANTILES, axis=0))
    stacked = np.concatenate(corners)
    low, high = stacked.min(0), stacked.max(0)
    margin = 0.05 * max(float((high - low).max()), 1.0)
    return low - margin, high + margin


def _aspect(span: dict[str, Any]) -> dict[str, float]:
    """The same length of a meter along all axes."""
    lengths = {axis: float(np.ptp(ends)) for axis, ends in span.items()}
    longest = max(lengths.values())
    return {axis: 1.35 * length / longest for axis, length in lengths.items()}


def _segments(starts: Float[np.ndarray, "n 3"], ends: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Lines in one trace, separated by NaN."""
    gaps = np.full_like(starts, np.nan)
    return np.stack([starts, ends, gaps], axis=1).reshape(-1, 3)


def _frusta(pose: Float[np.ndarray, "v 4 4"], corners: Float[np.ndarray, "v 4 3"], size: float) -> go.Scatter3d:
    import plotly.graph_objects as go

    ends = transform_points(pose, size * corners)
    starts = np.broadcast_to(pose[:, None, :3, 3], ends.shape)
    edges = [(starts, ends), (ends, np.roll(ends, -1, axis=1))]
    lines = np.concatenate([_segments(a.reshape(-1, 3), b.reshape(-1, 3)) for a, b in edges])
    return go.Scatter3d(**_upright(lines), mode="lines", line={"color": GRAY, "width": 2}, name="image corners")
