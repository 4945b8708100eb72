"""``coopmap COMMAND [group=choice ...] [key=value ...]``: the entry point of the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from coopmap.cli.command import Command
from coopmap.cli.commands import FAMILIES, OWN_COMMANDS, family, find_command, first_words, unknown_command
from coopmap.cli.errors import user_errors_end_quietly

HELP_WORDS = ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line, by default that of the process.

    A user error ends the program with one message and exit status 2; ``HYDRA_FULL_ERROR=1`` shows everything.

    Args:
        arguments: the command and what follows it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with user_errors_end_quietly():
        try:
            _run(words)
            sys.stdout.flush()
        except BrokenPipeError:  # ``coopmap help train | head`` closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_entry_point(command: str) -> None:
    """The same for ``python -m coopmap.COMMAND``."""
    main([*command.split(), *sys.argv[1:]])


def _run(words: list[str]) -> None:
    from coopmap.cli import help

    if not words or words[0] in HELP_WORDS:
        print(help.overview())
    elif words[0] == "--version":
        from importlib.metadata import version

        print(f"coopmap {version('coopmap')}")
    elif words[0] == "help":
        print(help.topic([word for word in words[1:] if word not in HELP_WORDS]))
    elif words[0] in ("completion", "__complete"):
        from coopmap.cli import completion

        print(completion.script(words[1:]) if words[0] == "completion" else completion.answer(words[1:]))
    else:
        _run_command(words)


def _run_command(words: list[str]) -> None:
    from coopmap.cli import help

    command, length = find_command(words)
    if command is None:
        _stop_at_family(words)
        raise unknown_command(words[0], [*first_words(), *OWN_COMMANDS])
    arguments = words[length:]
    if _asks_for_help(arguments):
        print(help.command_help(command))
        return
    if command.needs and not arguments:
        print(help.short_usage(command), file=sys.stderr)
        raise SystemExit(2)
    call(command, arguments)


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return arguments[:1] == ["help"] or not set(HELP_WORDS).isdisjoint(arguments)


def _stop_at_family(words: Sequence[str]) -> None:
    """Help, or an error, for ``bench`` without one of its commands."""
    from coopmap.cli import help

    if words[0] not in FAMILIES:
        return
    if _asks_for_help(words[1:]):
        print(help.family_help(words[0]))
        raise SystemExit(0)
    if len(words) == 1:
        print(help.family_help(words[0]), file=sys.stderr)
        raise SystemExit(2)
    raise unknown_command(words[1], [command.name.split()[1] for command in family(words[0])], f"coopmap {words[0]}")


def _check_outputs(command: Command, options: Any) -> None:
    from coopmap.runs.outputs import check_output_file, check_output_folder

    for keys, check in ((command.folders, check_output_folder), (command.files, check_output_file)):
        for key in keys:
            if (place := getattr(options, key)) is not None:
                check(key, place)


def call(command: Command, arguments: Sequence[str]) -> None:
    """Run a command with its arguments.

    Raises:
        ConfigError: an argument is wrong; what else the command raises.
    """
    from coopmap.cli.arguments import options_of, read

    found = read(command, arguments)
    if command.through_hydra:
        from coopmap.cli.hydra_run import run_composed

        run_composed(command.load(), found)
        return
    options = options_of(command, found)
    _check_outputs(command, options)
    if command.takes_config:
        command.load()(options, found.overrides)
    else:
        command.load()(options)
