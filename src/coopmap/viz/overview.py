"""One picture of a prediction: a row per view with image, depth and mask."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from coopmap.viz.canvas import INK, WHITE, at_width, put_text, text_strip

GAP = 8
LABEL_HEIGHT = 24
LEGEND_HEIGHT = 52
LEFT_OUT = np.array([214, 39, 40])
"""Red that pixels outside the mask are tinted with."""
PANEL_WIDTH = 640
"""Of a panel, pixels."""
ROUND = (1, 2, 5)
"""Leading digits of the numbers on the depth legend."""


def depth_limits(depth: Float[np.ndarray, "*b"]) -> tuple[float, float]:
    """Near and far end of a color scale: 2nd and 98th percentile of the known depths."""
    known = depth[np.isfinite(depth) & (depth > 0)]
    if not len(known):
        return 1.0, 10.0
    near, far = np.percentile(known, [2, 98])
    return float(near), float(max(far, near * 1.05))


def color_depth(depth: Float[np.ndarray, "h w"], near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as RGB on a logarithmic scale, near is bright; white where it is unknown (0)."""
    known = np.isfinite(depth) & (depth > 0)
    share = np.log(np.where(known, depth, near) / near) / np.log(far / near)
    gray = np.rint(255 * (1 - np.clip(share, 0, 1))).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    colors[~known] = WHITE
    return colors


def draw_overview(
    images: UInt8[np.ndarray, "v h w 3"],
    depth: Float[np.ndarray, "v h w"],
    mask: Bool[np.ndarray, "v h w"],
    names: Sequence[str],
) -> UInt8[np.ndarray, "hp wp 3"]:
    """Image, depth and mask (what is left out is tinted red) of every view, with a legend in meters; RGB."""
    near, far = depth_limits(depth[mask] if mask.any() else depth)
    rows = []
    for image, distance, keep, name in zip(images, depth, mask, names, strict=True):
        tinted = np.where(keep[..., None], image, 0.45 * image + 0.55 * LEFT_OUT).astype(np.uint8)
        panels = [at_width(panel, PANEL_WIDTH) for panel in (image, color_depth(distance, near, far), tinted)]
        blank = np.full((len(panels[0]), GAP, 3), WHITE, np.uint8)
        row = np.concatenate([panels[0], blank, panels[1], blank, panels[2]], axis=1)
        label = text_strip(LABEL_HEIGHT, row.shape[1], f"{name}: image, depth, mask ({keep.mean():.0%} kept)")
        rows += [label, row]
    rows.append(_legend(rows[0].shape[1], near, far))
    return cv2.copyMakeBorder(np.concatenate(rows), GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=(WHITE,) * 3)


def _legend(width: int, near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    """A bar of the depth colors under the depth column, with round numbers of meters."""
    legend = np.full((LEGEND_HEIGHT, width, 3), WHITE, np.uint8)
    left = PANEL_WIDTH + GAP
    values = np.geomspace(near, far, PANEL_WIDTH)
    legend[10:22, left : left + PANEL_WIDTH] = color_depth(values[None], near, far)
    free_from = left
    for tick in round_numbers(near, far):
        column = left + round((PANEL_WIDTH - 1) * np.log(tick / near) / np.log(far / near))
        text = f"{tick:g}"
        half = 5 * len(text)
        if column - half < free_from or column + half > left + PANEL_WIDTH:
            continue
        legend[22:27, column] = INK
        put_text(legend, text, column - half + 1, 42)
        free_from = column + half + 6
    put_text(legend, "depth (m)", left - 90, 21)
    return legend


def round_numbers(near: float, far: float) -> list[float]:
    """Numbers for the ticks of a logarithmic scale."""
    decades = range(int(np.floor(np.log10(near))) - 1, int(np.ceil(np.log10(far))) + 1)
    numbers = [digit * 10.0**decade for decade in decades for digit in ROUND]
    inside = [number for number in numbers if near <= number <= far]
    return inside if len(inside) > 1 else [float(f"{value:.3g}") for value in np.linspace(near, far, 5)]
