"""``key=value`` arguments in Hydra's grammar: the same quoting, lists, null, ``+`` and ``~`` everywhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from coopmap.config.checks import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

T = TypeVar("T")


def parse_override(argument: str) -> Override:
    """Read one argument.

    Raises:
        hydra.errors.HydraException: it is not in the grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(argument)


def readable(argument: str) -> str:
    """The argument in a form that the grammar accepts: a path that it cannot read is quoted.

    Raises:
        ConfigError: it is not ``key=value``, or cannot be read; the message shows the quoted form that can.
    """
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if not equals and not key.startswith("~"):
        raise ConfigError(f"{argument}: expected key=value")
    try:
        override = parse_override(argument)
    except HydraException:
        override = None
    if override is not None and not (override.is_sweep_override() and "/" in value):
        return argument
    path = Path(value).expanduser()
    if _exists(path):
        return f"{key}={quoted(str(path))}"
    if override is not None:
        return argument
    if re.fullmatch(r"[+~]*[\w./@-]+", key, re.ASCII):
        works = f"{key}={quoted(value)}"
        shown = shlex.quote(works) if re.search(r'[$`"\\!]', works) else f'"{works}"'
        raise ConfigError(f"cannot read {argument!r}: quote the value, {shown}")
    raise ConfigError(f"cannot read {argument!r}: expected key=value")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name
        return False


def quoted(value: str) -> str:
    """A value in quotes, so that the grammar reads it literally."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=value.replace("${", "\\${"), quote=Quote.single).with_quotes()


def apply_overrides(config: DictConfig, overrides: Iterable[Override]) -> None:
    """Change a structured config in place, as Hydra does: ``+`` adds, ``++`` adds or changes, ``~`` removes.

    Raises:
        ConfigError: ``+`` for what is there, ``~`` for what is not or must be, or a sweep over several values.
        omegaconf.errors.OmegaConfBaseException: an unknown key, or a value of another type.
    """
    from omegaconf import OmegaConf, open_dict

    for override in overrides:
        refuse_sweep(override)
        key = override.key_or_group
        if override.is_delete():
            _remove(config, key, override.input_line or key)
            continue
        value = override.value()
        present = OmegaConf.select(config, key, throw_on_missing=False) is not None
        if override.is_add() and present and not isinstance(value, dict | list):
            raise ConfigError(f"{override.input_line}: there is a {key} already; leave the + out")
        if override.is_add() or override.is_force_add():
            with open_dict(config):
                OmegaConf.update(config, key, value, merge=True)
        else:
            OmegaConf.update(config, key, value, merge=True)


def _remove(config: DictConfig, key: str, argument: str) -> None:
    from omegaconf import DictConfig, OmegaConf

    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or leaf not in node:
        raise ConfigError(f"{argument}: there is no {key} to remove")
    if OmegaConf.get_type(node) is not dict:
        raise ConfigError(f"{argument}: {key} cannot be removed, only changed")
    del node[leaf]


def refuse_sweep(override: Override) -> None:
    """Raise :class:`ConfigError` if the argument holds several values for a sweep."""
    if override.is_sweep_override():
        key, _, value = (override.input_line or "").partition("=")
        raise ConfigError(
            f"{key}={value}: several values are for sweeps (coopmap train -m); a list is [a,b], and text with a comma "
            f'is quoted: "{key}={quoted(value)}"'
        )


def typed(schema: type[T], arguments: Sequence[str], positional: Sequence[str] = (), places: str | None = None) -> T:
    """An instance of a dataclass from ``key=value`` arguments.

    A list also accepts a single value and ``a,b``. Text is taken as written: ``run=1_0`` is not a number.

    Args:
        schema: the dataclass.
        arguments: each for a key of the dataclass, in a form that the grammar accepts.
        positional: further values of the list ``places``, taken literally.
        places: name of that list.

    Raises:
        ConfigError: a key or value is wrong.
    """
    from omegaconf import OmegaConf

    from coopmap.config.errors import as_shown
    from coopmap.config.meanings import all_keys

    annotations = {key.name: key.annotation for key in all_keys(schema)}
    config = OmegaConf.structured(schema)
    OmegaConf.set_struct(config, True)
    try:
        for argument in arguments:
            override = parse_override(argument)
            key = override.key_or_group
            is_change = key in annotations and argument.startswith(f"{key}=")
            literal = _literal(override, annotations[key]) if is_change else None
            if literal is None:
                apply_overrides(config, [override])
            else:
                OmegaConf.update(config, key, literal, merge=True)
        if places is not None and positional:
            config[places] = [*positional, *config[places]]
        made = OmegaConf.to_object(config)
    except Exception as error:
        raise as_shown(error, annotations, (), arguments) from None
    assert isinstance(made, schema)
    return made


def _literal(override: Override, annotation: Any) -> Any:
    """The value as it was written, where text (or a list of it) is expected; ``None``: take it as parsed."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    written, parsed = (override.input_line or "").partition("=")[2], override.value()
    options = get_args(annotation) if get_origin(annotation) is not list else ()
    wanted = next((option for option in (annotation, *options) if option is str or get_origin(option) is list), None)
    if wanted is str:
        return written if isinstance(parsed, int | float | bool) else None
    if wanted is None or isinstance(parsed, list) or parsed is None:
        return None
    if get_args(wanted)[0] is str and not re.search("['\"]", written):
        return [part for part in written.split(",") if part]
    items = parsed.list if isinstance(parsed, ChoiceSweep) else [parsed]
    return [item.text if isinstance(item, QuotedString) else item for item in items]
