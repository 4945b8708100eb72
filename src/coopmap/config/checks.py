"""Checks of configuration values; their errors name the key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


@contextmanager
def recorded_choices() -> Iterator[dict[str, tuple[str, ...]]]:
    """Collect the choices of keys from all :func:`require_choice` calls within the context, for help and completion."""
    record: dict[str, tuple[str, ...]] = {}
    _recorded.append(record)
    try:
        yield record
    finally:
        _recorded.pop()
