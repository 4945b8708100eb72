"""Pictures of single samples for the report: what the agents saw, and their true and predicted poses."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, UInt8
from torch import Tensor

from coopmap.evaluation.charts import METHOD_COLORS
from coopmap.geometry.poses import heading_deg
from coopmap.report.pages import literal
from coopmap.report.palette import GRAY

SIZE = 330
"""Height of the top-down plot, pixels."""
SMALLEST_SPAN_M = 20.0


def view_uri(rgb: UInt8[np.ndarray, "h w 3"], max_width: int) -> str:
    """What a view shows as the data URL of an inline JPEG."""
    pixels = np.ascontiguousarray(rgb[..., ::-1])
    height, width = pixels.shape[:2]
    if width > max_width:
        size = (max_width, round(height * max_width / width))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _data_url(pixels, ".jpg", "jpeg", cv2.IMWRITE_JPEG_QUALITY, 82)


def inline(rgb: UInt8[np.ndarray, "h w 3"]) -> str:
    """A drawn picture as the data URL of an inline WebP."""
    return _data_url(np.ascontiguousarray(rgb[..., ::-1]), ".webp", "webp", cv2.IMWRITE_WEBP_QUALITY, 90)


def _data_url(bgr: UInt8[np.ndarray, "h w 3"], ending: str, kind: str, *options: int) -> str:
    _, encoded = cv2.imencode(ending, bgr, list(options))
    return f"data:image/{kind};base64," + base64.b64encode(encoded.tobytes()).decode()


def top_down(poses: Mapping[str, Float[Tensor, "n 4 4"]], agents: Sequence[str]) -> go.Figure:
    """The agents seen from above, the reference agent's forward direction upward.

    Args:
        poses: ``T_0_j`` under ``true``, ``model`` and perhaps ``refined``.
        agents: their names.
    """
    figure = go.Figure()
    true = poses["true"].double().numpy()
    for name in ("refined", "model"):
        if name in poses:
            answer = poses[name].double().numpy()
            figure.add_trace(_joined(true, answer, METHOD_COLORS[name], "dot" if name == "refined" else "solid"))
            symbol = "arrow-open" if name == "refined" else "arrow"
            figure.add_trace(_agents(answer[1:], agents[1:], METHOD_COLORS[name], symbol, name))
    figure.add_trace(_agents(true, agents, GRAY, "arrow", "true"))
    figure.data[-1].update(mode="markers+text", text=[f" {view}" for view in range(len(true))])
    ground = np.concatenate([np.stack([trace.x, trace.y], axis=1) for trace in figure.data if trace.mode != "lines"])
    ground = ground[np.isfinite(ground).all(axis=1)]
    low, high = ground.min(axis=0), ground.max(axis=0)
    half = 0.6 * max(float((high - low).max()), SMALLEST_SPAN_M)
    span = np.stack([(low + high) / 2 - half, (low + high) / 2 + half], axis=1).tolist()
    figure.update_xaxes(title_text="to the right (m)", range=span[0], constrain="domain")
    figure.update_yaxes(title_text="ahead (m)", range=span[1], scaleanchor="x", scaleratio=1, constrain="domain")
    margin = {"l": 8, "r": 8, "t": 8, "b": 8}
    return figure.update_layout(height=SIZE, margin=margin, showlegend=False, hovermode="closest", font_size=11)


def _agents(pose: Float[np.ndarray, "n 4 4"], agents: Sequence[str], color: str, symbol: str, what: str) -> go.Scatter:
    """Arrows in the agents' viewing directions."""
    return go.Scatter(
        x=pose[:, 0, 3],
        y=pose[:, 2, 3],
        mode="markers",
        marker={
            "color": color,
            "symbol": symbol,
            "size": 13,
            "angle": heading_deg(pose),
        },
        textposition="middle right",
        customdata=[literal(agent) for agent in agents],
        hovertemplate=f"{what}, agent %{{customdata}}<br>%{{x:.1f}} m right, %{{y:.1f}} m ahead<extra></extra>",
    )


def _joined(true: Float[np.ndarray, "n 4 4"], answer: Float[np.ndarray, "n 4 4"], color: str, dash: str) -> go.Scatter:
    """Lines from the true positions to the predicted ones, separated by NaN."""
    ends = np.stack([true[1:, :3, 3], answer[1:, :3, 3], np.full_like(true[1:, :3, 3], np.nan)], axis=1).reshape(-1, 3)
    line = {"color": color, "width": 1.5, "dash": dash}
    return go.Scatter(x=ends[:, 0], y=ends[:, 2], mode="lines", line=line, opacity=0.6, hoverinfo="skip")
