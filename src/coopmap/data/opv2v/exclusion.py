"""Files that list what to leave out: one line ``SPLIT_FOLDER/SCENARIO/AGENT/FRAME`` for each agent in each frame."""

from __future__ import annotations

import re
from pathlib import Path

from coopmap.config.checks import ConfigError

_LINE = re.compile(r"[^/]+/[^/]+/-?\d+/\d+")


def read_exclusions(file: str | Path | None) -> frozenset[str]:
    """Entries of a list; empty lines and what follows a ``#`` say nothing.

    Raises:
        ConfigError: there is no such file, or a line is none of these.
    """
    if file is None:
        return frozenset()
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"data.exclude={file}: there is no such file; coopmap check fix_list=FILE writes one")
    entries = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        entry = line.strip()
        if entry.startswith("#") or not _LINE.fullmatch(entry):  # names of scenarios may hold a "#"
            entry = entry.partition("#")[0].strip()
        if entry and not _LINE.fullmatch(entry):
            raise ConfigError(f"data.exclude={file}, line {number}: {entry!r}, expected SPLIT/SCENARIO/AGENT/FRAME")
        entries |= {entry} - {""}
    return frozenset(entries)
