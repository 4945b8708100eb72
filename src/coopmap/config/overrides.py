"""``key=value`` arguments in Hydra's grammar: the same quoting, lists, null, ``+`` and ``~`` everywhere."""

from __future__ import annotations

import os
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


_HOME = re.compile(r"""(?<=[=\[,'" ])~(?=/|$)""")


def at_home(argument: str) -> str:
    """An argument whose values ``~`` and ``~/...`` are in the home folder: shells leave ``data.root=~/x`` alone."""
    return _HOME.sub(lambda _: os.path.expanduser("~"), argument)


class UnreadableError(ConfigError):
    """An argument is not in the grammar, and would be if its value were quoted.

    Attributes:
        argument: as typed.
        readable: the same with its value quoted.
    """

    def __init__(self, argument: str, readable: str) -> None:
        super().__init__(f"cannot read {argument!r}: quote the value, {shell_word(readable)}")
        self.argument, self.readable = argument, readable


def readable(argument: str, is_text: bool = False) -> str:
    """The argument in a form that the grammar accepts: text that it would not read as it is written is quoted.

    Args:
        argument: as typed.
        is_text: its key holds text, so that ``2021_08`` is no number and ``[x]`` no list.

    Raises:
        UnreadableError: it cannot be read, and could be if its value were quoted.
        ConfigError: it is not ``key=value``.
    """
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if not equals and not key.startswith("~"):
        raise ConfigError(f"{argument}: expected key=value")
    path = existing(value)
    as_path = None if path is None else f"{key}={quoted(path)}"
    try:
        override = parse_override(argument)
    except HydraException:
        if as_path is None and not re.fullmatch(r"[+~]*[\w./@-]+", key, re.ASCII):
            raise ConfigError(f"cannot read {argument!r}: expected key=value") from None
        if as_path is None and is_text and not _IN_GRAMMAR.search(value):
            return f"{key}={quoted(value)}"
        override = None
    if override is None or (is_text and isinstance(override.value(), list | dict)):
        if as_path is None:
            raise UnreadableError(argument, f"{key}={quoted(value)}")
        return as_path
    if override.is_sweep_override():
        return as_path if as_path is not None and (is_text or "/" in value) else argument
    if not is_text or override.value() in (value, None) or value.startswith(("'", '"')):
        return argument
    if isinstance(override.value(), int | float):
        return f"{key}={quoted(value)}"
    return as_path or argument  # spaces at its ends, say


_IN_GRAMMAR = re.compile(r"""^['"\[{]|,|\$\{""")
"""What only a value in the grammar is meant to have: quotes around it, a list, a sweep, an interpolation."""


def existing(value: str) -> str | None:
    """The path that a value stands for, if there is something."""
    try:
        path = Path(value).expanduser()
        return str(path) if value and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long for a name, or the home of nobody
        return None


def shell_word(text: str) -> str:
    """Text as a word of a command line, in double quotes where those do: values often are in single ones."""
    if shlex.quote(text) == text:
        return text
    return shlex.quote(text) if re.search(r'[$`"\\!]', text) else f'"{text}"'


def as_argument(key: str, value: str) -> str:
    """``key=value`` as a word of a command line that has just this text for a value."""
    from hydra.errors import HydraException

    written = f"{key}={value}"
    try:
        is_read = parse_override(written).value() == value
    except HydraException:
        is_read = False
    return f"{key}={shlex.quote(value)}" if is_read else shell_word(f"{key}={quoted(value)}")


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
