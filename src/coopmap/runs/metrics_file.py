"""Reading ``metrics.csv``; free of torch and lightning, so that looking for runs is quick."""

from __future__ import annotations

import csv
from pathlib import Path


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``, without the empty cells."""
    with file.open(newline="") as stream:
        rows = csv.DictReader(stream)
        return [{name: float(text) for name, text in row.items() if text} for row in rows if row["step"]]
