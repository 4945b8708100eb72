"""Reading ``metrics.csv``; free of torch and lightning, so that looking for runs is quick."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.runs.texts import MAX_TABLE_BYTES, read_text


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``, without the empty cells.

    Raises:
        ConfigError: the file is damaged.
        FileNotFoundError: there is none.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_text(file, MAX_TABLE_BYTES), newline=""))
        return [{name: float(text) for name, text in row.items() if text} for row in rows if row["step"]]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else error
        raise ConfigError(f"{file}: not a table of metrics, or damaged ({reason})") from None
