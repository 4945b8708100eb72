"""Command lines of programs that are told what to do by ``key=value`` alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from coopmap.cli.hydra_main import user_errors_end_quietly
from coopmap.config import ConfigError
from coopmap.config.errors import nearest_key


def run_program(text: str | None, run: Callable[[list[str]], None]) -> None:
    """Call ``run`` with the arguments of the command line, or print ``text`` if there are none or help is asked for.

    A mistake of the user ends the program with one message and exit status 2.
    """
    arguments = sys.argv[1:]
    if not arguments or asks_for_help(arguments):
        print(text)
        return
    with user_errors_end_quietly():
        run(arguments)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether ``-h`` or ``--help`` is among the arguments."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def split_arguments(
    arguments: Sequence[str],
    own_keys: Sequence[str],
    is_override: Callable[[str], bool] = lambda key: False,
    prefix: str = "",
) -> tuple[dict[str, str], list[str]]:
    """A program's own keys with their values, and overrides of the configuration.

    Args:
        arguments: each ``key=value``.
        own_keys: of the program.
        is_override: whether any other key is one of the configuration.
        prefix: may stand before keys of the program's own.

    Raises:
        ConfigError: an argument is no ``key=value``, or its key is neither.
    """
    own: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        name = key.removeprefix(prefix)
        if not equals:
            raise ConfigError(f"{argument}: expected key=value")
        if name in own_keys:
            own[name] = value
        elif name == key and is_override(key):
            overrides.append(argument)
        else:
            near = nearest_key(name, own_keys)
            hint = f"did you mean {near}?" if near else f"no such key; there are {', '.join(own_keys)}"
            raise ConfigError(f"{key}: {hint}")
    return own, overrides
