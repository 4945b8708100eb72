"""Agents and points on a plan: from above, forward of the reference agent up the page."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from coopmap.geometry.se3_numpy import transform_points
from coopmap.report.palette import GREEN, ORANGE
from coopmap.viz.canvas import INK, WHITE, put_text
from coopmap.viz.scene import GPS, PRED, TRUE, Scene

FOOT_HEIGHT = 64
SMALLEST_SPAN_M = 24.0
GRID_M = (5.0, 10.0, 20.0, 50.0, 100.0)
PALE = (226, 226, 226)
FINE = 4
"""Bits of a pixel's fraction in coordinates that OpenCV draws at."""


def draw_plan(
    scene: Scene, points: Sequence[Float[np.ndarray, "n 3"]], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Agents where they are, where a model puts them, and where GPS does, RGB; points that are shown are pale.

    Args:
        scene: with the agents.
        points: in the frame of the scene.
        size: height and width in pixels.
    """
    by_source = {source: [agent.pose.get(source) for agent in scene.agents] for source in (TRUE, GPS, PRED)}
    known = [pose for poses in by_source.values() for pose in poses if pose is not None]
    canvas = np.full((*size, 3), WHITE, np.uint8)
    to_pixel, meter = fit(np.stack(known)[:, :3, 3], [], size)  # points far from all agents do not shrink them
    for cloud in points:
        columns, rows = (to_pixel(cloud[np.isfinite(cloud).all(axis=1)]) >> FINE).T
        inside = (columns >= 0) & (rows >= 0) & (columns < size[1]) & (rows < size[0] - FOOT_HEIGHT)
        canvas[rows[inside], columns[inside]] = (176, 196, 214)
    draw_grid(canvas, to_pixel, meter)
    for number, (true, gps, pred) in enumerate(zip(*by_source.values(), strict=True)):
        if gps is not None:
            _cross(canvas, to_pixel, gps)
        if pred is not None:
            draw_arrow(canvas, to_pixel, pred, meter, rgb(GREEN), filled=True)
        if true is not None:
            draw_arrow(canvas, to_pixel, true, meter, INK, filled=False)
        if true is not None and pred is not None:
            start, end = (to_pixel(pose[:3, 3]).tolist() for pose in (true, pred))
            cv2.line(canvas, start, end, rgb(GREEN), 1, cv2.LINE_AA, FINE)
        first = next(pose for pose in (true, pred, gps) if pose is not None)
        x, y = (to_pixel(first[:3, 3]) >> FINE).tolist()
        put_text(canvas, str(number), x + 12, y - 8)
    _key(canvas, any(gps is not None for gps in by_source[GPS]))
    return canvas


def _cross(canvas: UInt8[np.ndarray, "h w 3"], to_pixel: ToPixel, pose: Float[np.ndarray, "4 4"]) -> None:
    x, y = (to_pixel(pose[:3, 3]) / 2**FINE).round().astype(int).tolist()
    cv2.drawMarker(canvas, (x, y), rgb(ORANGE), cv2.MARKER_TILTED_CROSS, 13, 2, cv2.LINE_AA)


def _key(canvas: UInt8[np.ndarray, "h w 3"], has_gps: bool) -> None:
    """What the shapes mean, in the foot."""
    top = len(canvas) - FOOT_HEIGHT
    canvas[top:] = WHITE
    canvas[top] = PALE
    shape = 8 * np.array([[0, -1.0], [0.62, 0.7], [0, 0.35], [-0.62, 0.7]])
    for left, text in ((16, "predicted"), (126, "true")):
        corners = np.rint(np.array([left, top + 20]) + shape).astype(int)
        if text == "true":
            cv2.polylines(canvas, [corners], True, INK, 2, cv2.LINE_AA)
        else:
            cv2.fillPoly(canvas, [corners], rgb(GREEN), cv2.LINE_AA)
        put_text(canvas, text, left + 14, top + 25)
    if has_gps:
        cv2.drawMarker(canvas, (200, top + 20), rgb(ORANGE), cv2.MARKER_TILTED_CROSS, 11, 2, cv2.LINE_AA)
        put_text(canvas, "GPS", 212, top + 25)
    put_text(canvas, "from above, the reference agent (0) looks up the page", 12, top + 50)


class ToPixel:
    """From points to places in the picture, in OpenCV's fractions of pixels."""

    def __init__(self, center: Float[np.ndarray, " 2"], meter: float, middle: Float[np.ndarray, " 2"]) -> None:
        self.center, self.meter, self.middle = center, meter, middle

    def __call__(self, points: Float[np.ndarray, "*n 3"]) -> np.ndarray:
        ground = (points[..., [0, 2]] - self.center) * self.meter * np.array([1, -1])
        return np.rint(np.clip(ground + self.middle, -1e4, 1e4) * 2**FINE).astype(int)


def fit(
    agents: Float[np.ndarray, "n 3"], clouds: Sequence[Float[np.ndarray, "m 3"]], size: tuple[int, int]
) -> tuple[ToPixel, float]:
    """Shows all agents and nearly all points; pixels per meter."""
    extent = [agents[np.isfinite(agents).all(axis=1)][:, [0, 2]]]
    points = np.concatenate([np.zeros((0, 3)), *clouds])[:, [0, 2]]
    if len(points):
        extent.append(np.percentile(points, [5, 95], axis=0))
    stacked = np.concatenate(extent)
    low, high = stacked.min(axis=0), stacked.max(axis=0)
    room = np.array([size[1], size[0] - FOOT_HEIGHT - 16])
    meter = float((0.84 * room / np.maximum(high - low, SMALLEST_SPAN_M)).min())
    return ToPixel((low + high) / 2, meter, room / 2), meter


def draw_grid(canvas: UInt8[np.ndarray, "h w 3"], to_pixel: ToPixel, meter: float) -> None:
    """Lines at round distances from agent ``i``, with their distance from one another."""
    step = next((step for step in GRID_M if step * meter > 45), GRID_M[-1])
    height, width = canvas.shape[0] - FOOT_HEIGHT, canvas.shape[1]
    origin = to_pixel(np.zeros(3)) / 2**FINE
    for axis, length in enumerate((width, height)):
        first = origin[axis] % (step * meter)
        for at in np.arange(first, length, step * meter).astype(int):
            if axis == 0:
                canvas[:height, at] = PALE
            else:
                canvas[at] = PALE
    start = (10, height - 12)
    cv2.line(canvas, start, (start[0] + round(step * meter), start[1]), INK, 2)
    put_text(canvas, f"{step:g} m", start[0], start[1] - 6)


def draw_arrow(
    canvas: UInt8[np.ndarray, "h w 3"],
    to_pixel: ToPixel,
    pose: Float[np.ndarray, "4 4"],
    meter: float,
    color: tuple[int, int, int],
    filled: bool,
) -> None:
    """An agent as an arrowhead in its direction, of a fixed size."""
    size = 13 / meter
    shape = size * np.array([[0, 0, 1.0], [0.62, 0, -0.7], [0, 0, -0.35], [-0.62, 0, -0.7]])
    corners = to_pixel(transform_points(pose, shape))
    if filled:
        cv2.fillPoly(canvas, [corners], color, cv2.LINE_AA, FINE)
    else:
        cv2.polylines(canvas, [corners], True, color, 2, cv2.LINE_AA, FINE)


def rgb(color: str) -> tuple[int, int, int]:
    """Of ``#rrggbb``."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
