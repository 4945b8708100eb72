"""A sample as one page: linked pictures of all views, with numbers under the pointer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coopmap.geometry.rig import SLOTS
from coopmap.report.files import replacing
from coopmap.report.pages import write_page
from coopmap.report.tables import Table
from coopmap.viz.overview import color_depth, depth_limits, round_numbers
from coopmap.viz.packing import ANGLE_STEP_DEG, angle_levels, data_uri, pack, png, range_levels, range_step
from coopmap.viz.panels import CAMERA_COLORS, MASK_COLORS, ShownView, draw_panels, draw_seams

LEGEND_PIXELS = 256
TICK_GAP = 9.0
"""Between two ticks of the legend at least, percent."""


@dataclass(frozen=True, eq=False)
class Preview:
    """What a page shows.

    Attributes:
        name: of the sample.
        facts: of the sample, by label.
        agents: their names, the reference first.
        table: of the agents.
        views: of all agents, in order.
        warnings: lines to read first.
    """

    name: str
    facts: Mapping[str, str]
    agents: Sequence[str]
    table: Table
    views: Sequence[ShownView]
    warnings: Sequence[str] = field(default=())

    @property
    def limits(self) -> tuple[float, float]:
        """Near and far end of the color scale of all views."""
        depths = [view.depth.ravel() for view in self.views if view.depth is not None]
        return depth_limits(np.concatenate(depths) if depths else np.zeros(0))


def write_preview(file: Path, preview: Preview) -> list[Path]:
    """Write the page, and its pictures as PNG files into a folder of its name beside it.

    Returns:
        The PNG files.
    """
    near, far = preview.limits
    groups: list[dict[str, Any]] = [{"agent": agent, "rows": []} for agent in preview.agents]
    numbers: list[dict[str, Any]] = []
    pictures: list[tuple[Path, bytes]] = []
    for view in preview.views:
        panels = {what: png(picture) for what, picture in draw_panels(view, near, far).items()}
        for what, picture in panels.items():
            words = [str(view.agent), preview.agents[view.agent], view.name, what]
            pictures.append((file.with_suffix("") / f"{'_'.join(filter(None, words))}.png", picture))
        _add_panels(groups[view.agent]["rows"], view, panels, len(numbers))
        numbers.append(_numbers(view, preview.agents[view.agent]))
    for path, picture in pictures:
        with replacing(path) as temporary:
            temporary.write_bytes(picture)
    write_page(
        file,
        "preview.html",
        title=f"Preview: {preview.name}",
        name=preview.name,
        facts=preview.facts,
        table=preview.table,
        warnings=preview.warnings,
        groups=groups,
        numbers=numbers,
        cameras=SLOTS,
        range_error_mm=_range_error_mm(numbers),
        angle_error_deg=ANGLE_STEP_DEG / 2,
        legend=range_legend(near, far) if any(view.depth is not None for view in preview.views) else None,
        mask_colors=MASK_COLORS,
        camera_colors=dict(zip(SLOTS, CAMERA_COLORS, strict=True)),
        has_seams=any(view.has_seams for view in preview.views),
    )
    return [path for path, _ in pictures]


def _add_panels(rows: list[dict[str, Any]], view: ShownView, panels: Mapping[str, bytes], number: int) -> None:
    """Add what the template shows of a view, in a row of its own; single images of equal size share one.

    ``number`` is that of the view's numbers.
    """
    height, width = view.size
    is_single = len(panels) == 1
    if not (rows and is_single and rows[-1]["singles_of"] == view.size):
        row = {"is_wide": width > 2 * height, "width": width, "height": height, "panels": []}
        rows.append(row | {"singles_of": view.size if is_single else None})
    seams = data_uri(png(draw_seams(view))) if view.has_seams else None
    for what, picture in panels.items():
        panel = {"what": what, "view": number, "name": view.name, "picture": data_uri(picture)}
        rows[-1]["panels"].append(panel | {"seams": None if what == "camera" else seams})


def _numbers(view: ShownView, agent: str) -> dict[str, Any]:
    """What the script reads under the pointer; see ``packing``."""
    depth = np.zeros(view.size, np.float32) if view.depth is None else view.depth
    camera = np.full(view.size, -1) if view.camera is None else view.camera
    step = range_step(depth)
    azimuth, elevation = angle_levels(view.directions)
    return {
        "title": f"agent {agent}",
        "name": view.name,
        "height": view.size[0],
        "width": view.size[1],
        "reach": view.reach,
        "has_range": view.depth is not None,
        "range_step": step,
        "angle_step": ANGLE_STEP_DEG,
        "range": pack(range_levels(depth, step)),
        "azimuth": pack(azimuth),
        "elevation": pack(elevation),
        "camera": pack((camera + 1).astype(np.uint16)),
        "covered": pack(view.seen.astype(np.uint16)),
    }


def _range_error_mm(numbers: Sequence[Mapping[str, Any]]) -> float:
    """How far a range on the page may be off."""
    return max((1000 * view["range_step"] / 2 for view in numbers if view["has_range"]), default=0.0)


def range_legend(near: float, far: float) -> dict[str, Any]:
    """The bar of colors, and its ticks by place in percent."""
    bar = color_depth(np.geomspace(near, far, LEGEND_PIXELS)[None], near, far)
    ticks = [(100 * float(np.log(tick / near) / np.log(far / near)), f"{tick:g}") for tick in round_numbers(near, far)]
    return {"bar": data_uri(png(bar)), "ticks": list(_apart(ticks))}


def _apart(ticks: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """Ticks that are far enough from the one before."""
    free_from = 0.0
    for place, text in ticks:
        if place >= free_from and place <= 100:
            yield place, text
            free_from = place + TICK_GAP
