"""Reading ``metrics.csv``; free of torch and lightning, so that looking for runs is quick."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.runs.texts import MAX_TABLE_BYTES, read_text

log = logging.getLogger(__name__)


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``, without the empty cells.

    A last line that was cut off, as when the machine fails while it is written, is left out with a warning.

    Raises:
        ConfigError: the file is damaged.
        FileNotFoundError: there is none.
    """
    try:
        text = read_text(file, MAX_TABLE_BYTES)
        try:
            return _rows(text)
        except (ValueError, TypeError, csv.Error):
            whole = text[: text.rfind("\n") + 1]
            if whole in ("", text):
                raise
            rows = _rows(whole)
            log.warning("%s: the last line is cut off and left out", file)
            return rows
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else error
        raise ConfigError(f"{file}: not a table of metrics, or damaged ({reason})") from None


def _rows(text: str) -> list[dict[str, float]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows if row["step"]]
