"""Many samples on one page, small, each with a link to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coopmap.report.pages import write_page
from coopmap.viz.canvas import at_width
from coopmap.viz.packing import data_uri, png
from coopmap.viz.panels import draw_panels
from coopmap.viz.preview_page import Preview

WIDTH = 280
"""Of a panorama, in pixels; narrower views share it."""
SHOWN = ("image", "range")


@dataclass(frozen=True)
class SheetEntry:
    """A sample on the sheet.

    Attributes:
        name: of the sample.
        page: relative path of its page.
        facts: of the sample, by label.
        agents: names with, per row of pictures, what they show and their addresses.
    """

    name: str
    page: str
    facts: Mapping[str, str]
    agents: Sequence[tuple[str, Mapping[str, Sequence[str]]]]


def sheet_entry(preview: Preview, page: str) -> SheetEntry:
    """Shrink the pictures of a sample."""
    near, far = preview.limits
    rows: list[dict[str, list[str]]] = [{} for _ in preview.agents]
    cameras = max(1, len({view.name for view in preview.views if view.name}))
    for view in preview.views:
        width = WIDTH if view.size[1] > 2 * view.size[0] else WIDTH // cameras
        for what, picture in draw_panels(view, near, far).items():
            if what in SHOWN:
                rows[view.agent].setdefault(what, []).append(data_uri(png(at_width(picture, width))))
    return SheetEntry(preview.name, page, preview.facts, list(zip(preview.agents, rows, strict=True)))


def write_sheet(file: Path, name: str, entries: Sequence[SheetEntry], unreadable: Sequence[str]) -> None:
    """Write the page; ``unreadable`` are lines about samples that are missing from it."""
    write_page(file, "contact_sheet.html", title=f"Previews: {name}", name=name, entries=entries, unreadable=unreadable)
