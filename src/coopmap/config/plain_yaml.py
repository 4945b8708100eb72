"""YAML that cannot hurt its reader: of stored configurations, which come with runs of other people."""

from __future__ import annotations

import yaml

from coopmap.config.checks import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 30


def check_plain_yaml(text: str) -> None:
    """Refuse what is no mapping, and what takes its reader for ever: aliases of aliases, nesting without end.

    Raises:
        ConfigError: see above, or it is not YAML.
    """
    if not text.strip():
        raise ConfigError("it is empty")
    if len(text) > MAX_BYTES:
        raise ConfigError(f"it has {len(text)} characters, at most {MAX_BYTES} are expected")
    depth = is_mapping = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError("it has an alias (*name), which no stored configuration has")
            if isinstance(event, yaml.CollectionStartEvent):
                is_mapping = is_mapping or (depth == 0 and isinstance(event, yaml.MappingStartEvent))
                depth += 1
                if depth > MAX_DEPTH:
                    raise ConfigError(f"it is nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError as error:
        raise ConfigError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    if not is_mapping:
        raise ConfigError("it is no mapping of keys to values")
