"""``python -m coopmap.compare RUNS... [output=FOLDER] [by=KEY,...]``: runs side by side.

Puts runs together that differ in nothing but their seed, and writes comparison.html, .md and .csv: figures before
training, at the best and last checkpoint, at equal steps and equal wall time (mean and spread over seeds), what each
variant costs, and curves over steps and wall time.

  RUNS    run folders, folders that hold runs, or patterns: runs/fusion_mean 'runs/fusion_*'
  output  folder to write into; default: comparison, in the folder that holds all the runs
  by      put runs together that are equal in these keys, whatever else differs: by=experiment
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from coopmap.cli import user_errors_end_quietly
from coopmap.config import ConfigError
from coopmap.config.errors import nearest_key

OWN_KEYS = ("output", "by")


def main() -> None:
    """Command line."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    with user_errors_end_quietly():
        places, own = _split_arguments(arguments)
        from coopmap.comparison.compare import compare
        from coopmap.comparison.tables import print_table

        comparison = compare(places, own.get("output"), [key for key in own.get("by", "").split(",") if key])
        for table in comparison.tables[:-1]:
            print_table(table)
        for warning in comparison.warnings:
            print(f"note: {warning}")
        for file in comparison.files:
            print(f"written to {file}")


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Places of runs, and this program's keys."""
    places, own = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in OWN_KEYS and equals:
            own[key] = value
        elif equals and "/" not in key and (hint := nearest_key(key, OWN_KEYS)):
            raise ConfigError(f"{key}: did you mean {hint}?")
        else:
            places.append(argument)
    if not places:
        raise ConfigError("name at least one run folder, or a folder that holds runs")
    return places, own


if __name__ == "__main__":
    main()
