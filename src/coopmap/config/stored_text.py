"""The text of a stored configuration, which may be somebody else's: plain values of bounded size, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coopmap.config.checks import ConfigError

MAX_CHARACTERS = 1_000_000
"""A hundred times what a configuration takes."""
MAX_DEPTH = 32


def stored_mapping(text: str) -> dict[str, Any]:
    """Read a stored configuration.

    Interpolations are refused: ours are written out when they are stored, and those of somebody else could carry the
    environment of whoever opens them (``${oc.env:...}``) into files and messages. So are aliases, of which a few
    lines can make gigabytes, and depths that no configuration has.

    Raises:
        ConfigError: it is no such text.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if not text.strip():
        raise ConfigError("the stored configuration is empty")
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the stored configuration has {len(text)} characters, more than {MAX_CHARACTERS}")
    try:
        _check_structure(yaml.parse(text, Loader=loader))
        content = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError, UnicodeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the stored configuration is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError("the stored configuration is no mapping of keys to values")
    for key, value in _leaves(content):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise ConfigError(
                f"{key}: the stored configuration holds an interpolation, {value!r:.60}; these are resolved before "
                "they are stored, and never after. Write the value in its place"
            )
    return content


def _check_structure(events: Iterator[Any]) -> None:
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"the stored configuration holds an alias, *{event.anchor}; expected values written out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"the stored configuration is nested more than {MAX_DEPTH} deep")


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _leaves(item, prefix)
    else:
        yield prefix, value
