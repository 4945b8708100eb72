"""Tables: values with labels, units and formats, for the terminal, Markdown, JSON and HTML."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coopmap.report.numbers import DASH, Format, Interval, Spread, significant

FOUR_DIGITS = significant(4)

Value = None | str | int | float | Spread | Interval


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        label: heading.
        unit: of its numbers, shown in parentheses.
        form: text of a number that is no integer.
        align: of its cells.
        group: heading above neighboring columns that share it.
        key: machine-readable name; default: the heading.
        missing: text where there is no value.
        nan: text of NaN.
    """

    label: str
    unit: str = ""
    form: Format = FOUR_DIGITS
    align: Literal["left", "right"] = "right"
    group: str = ""
    key: str = ""
    missing: str = DASH
    nan: str = "NaN"

    @property
    def short(self) -> str:
        """Heading below that of the group."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """Heading without a group heading above it."""
        return f"{self.group}, {self.short}" if self.group else self.short

    def text(self, value: Value) -> str:
        """A formatted cell."""
        if value is None:
            return self.missing
        if isinstance(value, float) and value != value:
            return self.nan
        if isinstance(value, Spread | Interval):
            return value.text(self.form)
        return self.form(value) if isinstance(value, float) else str(value)

    def lines(self, value: Value) -> tuple[str, str]:
        """A formatted cell, with the small text below it."""
        if isinstance(value, Interval):
            return self.text(value.value), value.range(self.form)
        return self.text(value), ""

    def plain(self, value: Value) -> dict[str, Any]:
        """A machine-readable cell, unrounded."""
        name = self.key or self.heading
        if isinstance(value, Spread):
            return {name: value.mean, f"{name} std": value.std}
        if isinstance(value, Interval):
            low, high = value.bounds or (None, None)
            return {name: value.value, f"{name} low": low, f"{name} high": high}
        return {name: value}


def names(label: str = "", key: str = "") -> Column:
    """The column that identifies a row."""
    return Column(label, align="left", key=key or label, missing="")


@dataclass(frozen=True)
class Row:
    """Values of a row.

    Attributes:
        cells: by column; the first identifies the row.
        marked: columns to highlight.
        kind: class of the row on pages.
    """

    cells: Sequence[Value]
    marked: Collection[int] = ()
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """Rows that belong together; the title may be empty."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under column headings.

    Attributes:
        title: heading.
        columns: the first identifies a row.
        sections: of rows.
        note: general remarks; omitted on the terminal.
        footnotes: remarks about single rows.
    """

    title: str
    columns: Sequence[Column]
    sections: Sequence[Section]
    note: str = ""
    footnotes: Sequence[str] = ()

    @classmethod
    def of_records(cls, title: str, columns: Sequence[Column], records: Sequence[Mapping[str, Value]]) -> Table:
        """A table of values by the columns' keys; absent values are missing."""
        rows = [Row([record.get(column.key) for column in columns]) for record in records]
        return cls(title, columns, [Section(rows)])

    @property
    def rows(self) -> list[Row]:
        """Rows of all sections."""
        return [row for section in self.sections for row in section.rows]

    @property
    def has_groups(self) -> bool:
        """Whether some columns share a heading."""
        return any(column.group for column in self.columns)

    def groups(self) -> list[tuple[str, int]]:
        """Headings above the columns, each with the number of columns that it spans."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if column.group and found and found[-1][0] == column.group:
                found[-1] = column.group, found[-1][1] + 1
            else:
                found.append((column.group, 1))
        return found

    def texts(self, row: Row) -> list[str]:
        """Formatted cells of a row."""
        return [column.text(value) for column, value in zip(self.columns, row.cells, strict=True)]

    def lines(self, row: Row) -> list[tuple[str, str]]:
        """Formatted cells of a row, with the small text below each."""
        return [column.lines(value) for column, value in zip(self.columns, row.cells, strict=True)]

    def records(self) -> list[dict[str, Any]]:
        """Machine-readable rows, values unrounded: by key, with the section if there are several."""
        found = []
        for section in self.sections:
            for row in section.rows:
                record: dict[str, Any] = {"section": section.title} if len(self.sections) > 1 else {}
                for column, value in zip(self.columns, row.cells, strict=True):
                    record |= column.plain(value)
                found.append(record)
        return found

    def markdown(self, level: int = 2) -> str:
        """Headings of that level and below, a table per section; marked cells in bold."""
        parts = [f"{'#' * level} {self.title}", self.note]
        ruler = ["---" if column.align == "left" else "---:" for column in self.columns]
        for section in self.sections:
            rows = [
                [_cell(text, is_bold=place in row.marked) for place, text in enumerate(self.texts(row))]
                for row in section.rows
            ]
            lines = [[_cell(column.heading) for column in self.columns], ruler, *rows]
            parts.append(f"{'#' * (level + 1)} {section.title}" if section.title else "")
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
        return "\n\n".join([part for part in [*parts, *self.footnotes] if part]) + "\n"


def _cell(text: str, is_bold: bool = False) -> str:
    plain = " ".join(text.replace("|", "\\|").split())
    return f"**{plain}**" if is_bold else plain
