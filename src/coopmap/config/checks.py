"""Checks of configuration values; their errors name the key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_recorded: list[dict[str, tuple[str, ...]]] = []


class ConfigError(ValueError):
    """An invalid configuration; the message names the key and what was expected."""


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise :class:`ConfigError` for ``key`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


def require_choice(key: str, value: str | None, choices: Sequence[str]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``choices`` (or null); suggests the nearest."""
    for record in _recorded:
        record[key] = tuple(choices)
    if value is not None and value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"{key}={value}: expected one of {', '.join(choices)}{hint}")


def require_output_file(key: str, value: str | None) -> None:
    """Raise :class:`ConfigError` unless a file can be written there (or none is asked for): before it is computed."""
    if value is not None:
        path = Path(value).expanduser()
        require(not path.is_dir(), key, value, "a file to write, but this is a folder")
        _require_writable(key, value, path.parent)


def require_output_folder(key: str, value: str | None) -> None:
    """Raise :class:`ConfigError` unless files can be written into that folder (or none is asked for)."""
    if value is not None:
        _require_writable(key, value, Path(value).expanduser())


def _require_writable(key: str, value: str, folder: Path) -> None:
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    require(present.is_dir(), key, value, f"a place in a folder, but {present} is a file")
    require(os.access(present, os.W_OK | os.X_OK), key, value, f"a place to write to, but {present} is read-only")


@contextmanager
def recorded_choices() -> Iterator[dict[str, tuple[str, ...]]]:
    """Collect the choices of keys from all :func:`require_choice` calls within the context, for help and completion."""
    record: dict[str, tuple[str, ...]] = {}
    _recorded.append(record)
    try:
        yield record
    finally:
        _recorded.pop()
