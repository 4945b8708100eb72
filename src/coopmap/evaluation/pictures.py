"""Pictures of single samples for the report: what the cars saw, and where they are and were thought to be."""

from __future__ import annotations

import base64
import math

import cv2
import numpy as np
from jaxtyping import Float
from torch import Tensor

from coopmap.data.views import IMAGE_MEAN, IMAGE_STD
from coopmap.evaluation.charts import COLORS

MAX_WIDTH = 560
SIZE = 300
"""Edge of the top-down plot, pixels."""
MARGIN = 26
SMALLEST_SPAN_M = 20.0
TRUE_COLOR = "#1f2328"


def panorama_uri(image: Float[Tensor, "3 h w"]) -> str:
    """A normalized view as the address of an inline JPEG."""
    rgb = np.clip(image.permute(1, 2, 0).cpu().numpy() * IMAGE_STD + IMAGE_MEAN, 0, 1)
    pixels = np.ascontiguousarray((rgb * 255).round().astype(np.uint8)[..., ::-1])
    height, width = pixels.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, round(height * MAX_WIDTH / width))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def top_down(poses: dict[str, Float[Tensor, "n 4 4"]]) -> str:
    """SVG of the agents seen from above, the reference agent's forward direction upwards.

    Args:
        poses: ``T_0_j`` under ``true``, ``model`` and perhaps ``refined``.
    """
    drawn = {name: poses[name].double().numpy() for name in ("true", "refined", "model") if name in poses}
    ground = np.concatenate([pose[:, [0, 2], 3] for pose in drawn.values()])
    ground = ground[np.isfinite(ground).all(axis=1)]
    low, high = ground.min(axis=0), ground.max(axis=0)
    span = max(float((high - low).max()) * 1.1, SMALLEST_SPAN_M)
    pixels_per_m, middle = (SIZE - 2 * MARGIN) / span, (low + high) / 2

    def place(position: Float[np.ndarray, " 2"]) -> tuple[float, float]:
        x, forward = (position - middle) * pixels_per_m
        return SIZE / 2 + float(x), SIZE / 2 - float(forward)

    parts = [_rings(place(np.zeros(2)), pixels_per_m, span)]
    for name in ("refined", "model"):
        for view in range(1, len(drawn["true"])) if name in drawn else ():
            a, b = (place(drawn[kind][view, [0, 2], 3]) for kind in ("true", name))
            if all(map(math.isfinite, b)):
                dash = ' stroke-dasharray="3 3"' if name == "refined" else ""
                parts.append(_line(a, b, COLORS[name], dash))
                parts.append(_arrow(b, drawn[name][view], "none" if name == "refined" else COLORS[name], COLORS[name]))
    for view, pose in enumerate(drawn["true"]):
        position = place(pose[[0, 2], 3])
        parts.append(_arrow(position, pose, TRUE_COLOR, TRUE_COLOR))
        parts.append(f'<text x="{position[0] + 9:.1f}" y="{position[1] + 4:.1f}">{view}</text>')
    bar = _nice(span / 4)
    scale = (
        f'<line x1="{MARGIN / 2}" x2="{MARGIN / 2 + bar * pixels_per_m:.1f}" y1="{SIZE - 10}" y2="{SIZE - 10}" '
        f'stroke="{TRUE_COLOR}" stroke-width="2"/><text x="{MARGIN / 2}" y="{SIZE - 15}">{bar:g} m</text>'
    )
    opening = f'<svg class="map" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="seen from above">'
    return f"{opening}{''.join(parts)}{scale}</svg>"


def _rings(center: tuple[float, float], pixels_per_m: float, span: float) -> str:
    step = _nice(span / 4)
    return "".join(
        f'<circle cx="{center[0]:.1f}" cy="{center[1]:.1f}" r="{ring * step * pixels_per_m:.1f}" fill="none" '
        'stroke="#d8dee4"/>'
        for ring in range(1, 1 + math.ceil(1.5 * span / step))
    )


def _line(a: tuple[float, float], b: tuple[float, float], color: str, dash: str) -> str:
    return (
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{color}" stroke-opacity=".6" '
        f'stroke-width="1.5"{dash}/>'
    )


def _arrow(position: tuple[float, float], pose: Float[np.ndarray, "4 4"], fill: str, stroke: str) -> str:
    """A kite that points where the agent looks."""
    right, forward = pose[[0, 2], 2]
    turn = math.degrees(math.atan2(right, forward))
    return (
        f'<path d="M0 -9 L6 7 L0 3.5 L-6 7 Z" fill="{fill}" stroke="{stroke}" stroke-width="1.3" '
        f'transform="translate({position[0]:.1f} {position[1]:.1f}) rotate({turn:.1f})"/>'
    )


def _nice(length: float) -> float:
    """The largest of 1, 2, 5, 10, ... below a length."""
    magnitude = 10 ** math.floor(math.log10(length))
    return next(factor * magnitude for factor in (5, 2, 1) if factor * magnitude <= length)
