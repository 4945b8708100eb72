"""Parses the arguments of a command: its own keys, keys of the configuration, places, flags."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopmap.cli.command import Command
from coopmap.config.checks import ConfigError
from coopmap.config.errors import did_you_mean, nearest_key
from coopmap.config.groups import config_groups
from coopmap.config.meanings import all_keys
from coopmap.config.overrides import (
    UnreadableError,
    as_argument,
    at_home,
    existing,
    parse_override,
    readable,
    refuse_sweep,
    shell_word,
    typed,
)
from coopmap.config.schema import Config

HYDRA_FLAGS = {
    "--cfg": 1,
    "-c": 1,
    "--resolve": 0,
    "--package": 1,
    "-p": 1,
    "--info": 1,
    "-i": 1,
    "--multirun": 0,
    "-m": 0,
    "--run": 0,
    "-r": 0,
    "--config-dir": 1,
    "-cd": 1,
    "--hydra-help": 0,
}
"""Flags of Hydra, with the number of words that may follow."""


@dataclass
class Arguments:
    """Arguments of a command by kind; those with ``key=`` are in a form that Hydra's grammar accepts.

    Attributes:
        own: of the command's own keys.
        overrides: of groups and keys of the configuration.
        places: without ``key=``, as typed.
        flags: with the words that belong to them.
    """

    own: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    @property
    def is_sweep(self) -> bool:
        """Whether Hydra is asked to run several jobs."""
        return not {"-m", "--multirun"}.isdisjoint(self.flags)


def read(command: Command, arguments: Sequence[str]) -> Arguments:
    """Sort arguments by kind, and reject those that the command does not have.

    Raises:
        ConfigError: an argument cannot be read, or its key does not exist.
    """
    _refuse_parted_paths(command, arguments)
    found = Arguments()
    own = {key.name: key.annotation for key in all_keys(command.schema)} if command.schema else {}
    settings = {key.name: key.annotation for key in all_keys(Config)} if command.takes_config else {}
    known = [*settings, *(config_groups() if command.takes_config else ())]
    texts = {name for name, annotation in (settings | own).items() if annotation in (str, str | None)}
    expected, words, unreadable = 0, list[str](), None
    for argument in map(at_home, arguments):
        key, word = _key(argument), argument
        try:
            if argument.startswith("-"):
                expected = _check_flag(command, argument)
                found.flags.append(argument)
            elif expected and "=" not in argument:
                expected -= 1
                found.flags.append(argument)
            elif command.places and _is_place(argument, key, [*own, *known]):
                found.places.append(os.path.expanduser(argument))
            elif key in own:
                found.own.append(readable(argument, key in texts))
            else:
                override = readable(argument, key in texts)
                if not _is_known(key, known) and not (command.through_hydra and key.startswith("hydra.")):
                    raise _unknown(command, key, [*own], known)
                found.overrides.append(override)
        except UnreadableError as error:
            unreadable, word = unreadable or error.argument, error.readable
        words.append(shell_word(word))
    if unreadable is not None:
        raise ConfigError(f"cannot read {unreadable!r}; this is read: coopmap {command.name} {' '.join(words)}")
    if not found.is_sweep:
        for override in found.overrides:
            refuse_sweep(parse_override(override))
    return found


def _key(argument: str) -> str:
    return re.split("[=@]", argument.lstrip("+~"), maxsplit=1)[0]


def _refuse_parted_paths(command: Command, arguments: Sequence[str]) -> None:
    """Say how to write a path that the shell has parted at its spaces."""
    for last in range(1, len(arguments)):
        if "=" in arguments[last] or arguments[last].startswith("-") or existing(arguments[last]):
            continue
        first = next((place for place in range(last - 1, -1, -1) if "=" in arguments[place]), None)
        if first is None or arguments[first].startswith("-"):
            continue
        key, _, value = " ".join(arguments[first : last + 1]).partition("=")
        if existing(value):
            before, after = (map(shell_word, part) for part in (arguments[:first], arguments[last + 1 :]))
            raise ConfigError(
                f"{arguments[last]}: expected key=value; a path with spaces is quoted: "
                f"coopmap {command.name} {' '.join([*before, as_argument(key, value), *after])}"
            )


def options_of(command: Command, found: Arguments) -> Any:
    """The command's own options.

    Raises:
        ConfigError: a value is wrong, or a required one is missing.
    """
    assert command.schema is not None
    return typed(command.schema, found.own, found.places, command.places)


def _check_flag(command: Command, flag: str) -> int:
    """Number of words that may follow a flag; :class:`ConfigError` if the command has no such flag."""
    name, equals, _ = flag.partition("=")
    if command.through_hydra and name in HYDRA_FLAGS:
        return 0 if equals else HYDRA_FLAGS[name]
    has = f"--help, {', '.join(HYDRA_FLAGS)}" if command.through_hydra else "--help only"
    raise ConfigError(f"{name}: no flag of coopmap {command.name}, which has {has}; everything else is key=value")


def _is_place(argument: str, key: str, keys: Sequence[str]) -> bool:
    """Whether an argument is a place rather than a key with its value; places may hold an ``=``."""
    if "=" not in argument:
        return True
    if key in keys:
        return False
    return "/" in key or Path(argument).exists() or nearest_key(key, keys) is None


def _is_known(key: str, known: Sequence[str]) -> bool:
    """Whether a key belongs to the configuration, or to a mapping with free names (``optim.lr_of``)."""
    if key in known:
        return True
    parent = key.rpartition(".")[0]
    open_keys = [item.name for item in all_keys(Config) if item.kind.startswith(("{", "any"))] if parent else []
    return any(key.startswith(f"{name}.") for name in open_keys)


def _unknown(command: Command, key: str, own: Sequence[str], known: Sequence[str]) -> ConfigError:
    hint = did_you_mean(key, own) or did_you_mean(key, known) or f" coopmap help {command.name} lists them."
    return ConfigError(f"{key}: no such key.{hint}")
