"""``coopmap compare``: runs side by side."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point
from coopmap.config.compare import CompareConfig


def compare_command(asked: CompareConfig) -> None:
    """Compare, print the tables, the caveats and the paths of the written files."""
    from coopmap.comparison.compare import compare
    from coopmap.report.terminal import print_table

    comparison = compare(asked.runs, asked.output, asked.by, asked.runs_root)
    for table in comparison.tables[:-1]:
        print_table(table)
    for warning in comparison.warnings:
        print(f"note: {warning}")
    for file in comparison.files:
        print(f"written to {file}")


def main() -> None:
    """Command line."""
    run_entry_point("compare")


if __name__ == "__main__":
    main()
