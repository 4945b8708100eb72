"""Results of a benchmark as a table on the terminal, in Markdown or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopmap.config.checks import ConfigError
from coopmap.report.files import write_json, write_text
from coopmap.report.numbers import significant
from coopmap.report.tables import Column, Table, names
from coopmap.report.terminal import print_table


@dataclass
class Report:
    """Notes (``name: value``) and tables."""

    notes: dict[str, str] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def print(self) -> None:
        """Show on the terminal."""
        for name, value in self.notes.items():
            print(f"{name}: {value}")
        for each in self.tables:
            print_table(each)

    def write(self, file: Path) -> None:
        """Write ``.md`` or ``.json``."""
        check_output(file)
        if file.suffix == ".md":
            notes = "".join(f"- {name}: {value}\n" for name, value in self.notes.items())
            write_text("\n".join([notes, *(each.markdown(level=3) for each in self.tables)]), file)
        else:
            tables = {each.title: each.records() for each in self.tables}
            write_json({"notes": self.notes, "tables": tables}, file)


def check_output(file: Path) -> None:
    """Refuse unknown file types before anything is measured.

    Raises:
        ConfigError: the name ends neither in ``.md`` nor in ``.json``.
    """
    if file.suffix not in (".md", ".json"):
        raise ConfigError(f"output={file}: expected a name that ends in .md or .json")


def table(title: str, headings: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of rows by key, the first key saying what a row is; numbers have three significant digits."""
    (first, label), *rest = headings.items()
    columns = [names(label, first), *(Column(heading, form=significant(3), key=key) for key, heading in rest)]
    return Table.of_records(title, columns, list(rows))
