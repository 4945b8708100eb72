"""Tables on the terminal: numbers are never truncated or broken across lines.

A table that is wider than the terminal (80 columns where output is piped) is made narrower in this order: headings
wrap, names in the first column wrap, and then the columns are split into tables one below the other, each of which
starts with the names.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from coopmap.report.tables import Table

PIPED_WIDTH = 80
NAME_WIDTH = 16
"""The column of names is never narrower than this, unless its names are shorter."""
HEADING_WIDTH = 14
"""Words of headings are folded if they are longer, unless there is room."""
PADDING = 2
"""Gap between two columns; one character of it belongs to the box."""


def print_table(table: Table, width: int | None = None) -> None:
    """Show a table.

    Args:
        table: to show; its note is left out.
        width: in characters; default: that of the terminal, or 80 where output is piped.
    """
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH
    console = Console(width=width, highlight=False)
    if table.title:
        console.print(f"[bold]{escape(table.title)}[/bold]")
    rows = [(section.title, [(table.texts(row), row.marked) for row in section.rows]) for section in table.sections]
    headings = [column.heading for column in table.columns]
    titles = max((cell_len(title) for title, _ in rows), default=0)
    figures = [
        max((cell_len(texts[place]) for _, lines in rows for texts, _ in lines), default=0)
        for place in range(len(headings))
    ]
    figures[0] = max(figures[0], titles)
    for part, widths in layout(headings, figures, width):
        shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, PADDING - 1, 0, 0))
        for place, size in zip(part, widths, strict=True):
            shown.add_column(escape(headings[place]), justify=table.columns[place].align, width=size, overflow="fold")
        for title, lines in rows:
            if title:
                shown.add_section()
                shown.add_row(f"[dim]{escape(title)}[/dim]")
            for texts, marked in lines:
                shown.add_row(*(f"[bold]{escape(texts[i])}[/bold]" if i in marked else escape(texts[i]) for i in part))
        console.print(shown)
        console.print()
    for footnote in table.footnotes:
        console.print(escape(footnote))


def layout(headings: Sequence[str], figures: Sequence[int], width: int) -> list[tuple[list[int], list[int]]]:
    """Split columns into parts that fit.

    Args:
        headings: of the columns, the first of which holds names and stands in every part.
        figures: width of the widest cell of each column.
        width: that is available.

    Returns:
        For each part, the indices of its columns and their widths.
    """
    least = [
        max(size, min(HEADING_WIDTH, max(map(cell_len, heading.split()), default=0)))
        for heading, size in zip(headings, figures, strict=True)
    ]
    natural = [max(size, cell_len(heading)) for heading, size in zip(headings, figures, strict=True)]
    least[0] = min(NAME_WIDTH, natural[0])
    parts: list[list[int]] = [[0]]
    for place in range(1, len(headings)):
        taken = sum(least[i] + PADDING for i in parts[-1])
        if taken + least[place] > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    return [(part, _grow([least[i] for i in part], [natural[i] for i in part], width)) for part in parts]


def _grow(widths: list[int], natural: Sequence[int], width: int) -> list[int]:
    """Assign the remaining width to names first, then to the narrowest heading that wraps."""
    spare = width - sum(widths) - PADDING * (len(widths) - 1)
    while spare > 0 and (wrapped := [i for i, size in enumerate(widths) if size < natural[i]]):
        widths[0 if 0 in wrapped else min(wrapped, key=lambda i: widths[i])] += 1
        spare -= 1
    return widths
