"""``python -m coopmap.compare RUNS... [output=FOLDER] [by=KEY,...]``: runs side by side.

Puts runs together that differ in nothing but their seed, and writes comparison.html, .md and .csv: figures before
training, at the best and last checkpoint, at equal steps and equal wall time (mean and spread over seeds), what each
variant costs, and curves over steps and wall time.

  RUNS    run folders, folders that hold runs, or patterns: runs/fusion_mean 'runs/fusion_*'
  output  folder to write into; default: comparison, in the folder that holds all the runs
  by      put runs together that are equal in these keys, whatever else differs: by=experiment
"""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.arguments import run_program, split_arguments
from coopmap.config import ConfigError
from coopmap.config.errors import nearest_key

OWN_KEYS = ("output", "by")


def main() -> None:
    """Command line."""
    run_program(__doc__, _run)


def _run(arguments: Sequence[str]) -> None:
    places = [argument for argument in arguments if _is_place(argument)]
    own, _ = split_arguments([argument for argument in arguments if argument not in places], OWN_KEYS)
    if not places:
        raise ConfigError("name at least one run folder, or a folder that holds runs")
    from coopmap.comparison.compare import compare
    from coopmap.report.terminal import print_table

    comparison = compare(places, own.get("output"), [key for key in own.get("by", "").split(",") if key])
    for table in comparison.tables[:-1]:
        print_table(table)
    for warning in comparison.warnings:
        print(f"note: {warning}")
    for file in comparison.files:
        print(f"written to {file}")


def _is_place(argument: str) -> bool:
    """Whether an argument names runs; these may hold an ``=``."""
    key, equals, _ = argument.partition("=")
    return not equals or "/" in key or nearest_key(key, OWN_KEYS) is None


if __name__ == "__main__":
    main()
