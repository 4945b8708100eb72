"""Results of a benchmark as a table on the terminal, in Markdown or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopmap.config.checks import ConfigError


@dataclass
class Table:
    """Rows under a title; numbers are kept as such for JSON.

    Attributes:
        title: heading.
        columns: key of a row's value to heading; values that a row lacks stay empty.
        rows: values by key.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[format_value(row.get(key)) for key in self.columns] for row in self.rows]

    def print(self) -> None:
        """Show on the terminal."""
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left")
        for place, heading in enumerate(self.columns.values()):
            table.add_column(heading, justify="left" if place == 0 else "right")
        for cells in self.cells():
            table.add_row(*cells)
        Console(width=None if sys.stdout.isatty() else 160).print(table)

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [list(self.columns.values()), ["---", *["---:"] * (len(self.columns) - 1)], *self.cells()]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


@dataclass
class Report:
    """Notes (``name: value``) and tables."""

    notes: dict[str, str] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def print(self) -> None:
        """Show on the terminal."""
        for name, value in self.notes.items():
            print(f"{name}: {value}")
        for table in self.tables:
            table.print()

    def write(self, file: Path) -> None:
        """Write ``.md`` or ``.json``."""
        check_output(file)
        if file.suffix == ".md":
            notes = "".join(f"- {name}: {value}\n" for name, value in self.notes.items())
            text = "\n".join([notes, *(table.markdown() for table in self.tables)])
        else:
            tables = {table.title: list(table.rows) for table in self.tables}
            text = json.dumps({"notes": self.notes, "tables": tables}, indent=2) + "\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def check_output(file: Path) -> None:
    """Refuse files of unknown kind before anything is measured.

    Raises:
        ConfigError: the name ends neither in ``.md`` nor in ``.json``.
    """
    if file.suffix not in (".md", ".json"):
        raise ConfigError(f"output={file}: expected a name that ends in .md or .json")


def format_value(value: Any) -> str:
    """Text of a cell; numbers with three significant digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
