"""Reading ``metrics.csv``; free of torch and lightning, so that looking for runs is quick."""

from __future__ import annotations

import csv
from pathlib import Path

from coopmap.config.checks import ConfigError


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``, without the empty cells.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            return [{name: float(text) for name, text in row.items() if text} for row in rows if row["step"]]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else error
        raise ConfigError(f"{file}: not a table of metrics, or damaged ({reason})") from None
