"""Completion of words in bash, zsh and fish: the shells' scripts, and the completions that they request."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from coopmap.cli.command import Command
from coopmap.cli.commands import OWN_COMMANDS, family, find_command, first_words
from coopmap.config.checks import ConfigError
from coopmap.config.groups import config_groups, group_choices
from coopmap.config.meanings import Key, all_keys
from coopmap.config.schema import Config

# Bash splits words at = and : (COMP_WORDBREAKS) and replaces only the last piece: words are joined again, and
# completions are cut to what follows the start of the last piece.
BASH = r"""_coopmap() {
    local i word words=() last="${COMP_WORDS[COMP_CWORD]}" keep IFS=$'\n'
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ ${#words[@]} -gt 0 && ( $word == [=:]* || ${COMP_WORDS[i-1]} == *[=:] ) ]]; then
            words[${#words[@]}-1]+="$word"
        else
            words+=("$word")
        fi
    done
    word="${words[${#words[@]}-1]}"
    [[ $last == [=:] ]] && last=""
    keep="${word%"$last"}"
    COMPREPLY=($("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$keep"}")
    [[ ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _coopmap coopmap
"""

ZSH = r"""#compdef coopmap
_coopmap() {
    local -a replies open closed
    replies=("${(@f)$(coopmap __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    open=("${(@M)replies:#*[=./]}")
    closed=("${(@)replies:#*[=./]}")
    (( ${#open} )) && compadd -Q -S '' -a open
    (( ${#closed} )) && compadd -Q -a closed
}
compdef _coopmap coopmap
"""

FISH = r"""complete -c coopmap -f
complete -c coopmap -a '(coopmap __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
RUN_KEYS = {"run": ("latest",), "runs": ("latest",), "resume": ("auto", "latest"), "init_from": ("latest",)}
"""Keys that accept names of runs, with what else they accept."""


def script(words: Sequence[str]) -> str:
    """The script for a shell.

    Raises:
        ConfigError: not one of :data:`SCRIPTS`.
    """
    if len(words) != 1 or words[0] not in SCRIPTS:
        raise ConfigError(f"completion {' '.join(words)}: expected one of {', '.join(SCRIPTS)}")
    return SCRIPTS[words[0]].rstrip()


def answer(words: Sequence[str]) -> str:
    """Completions of the last of the words after ``coopmap``, one per line."""
    before, word = list(words[:-1]), words[-1] if words else ""
    return "\n".join(dict.fromkeys(found for found in _candidates(before, word) if found.startswith(word)))


def _candidates(before: Sequence[str], word: str) -> Iterable[str]:
    if not before:
        return [*first_words(), *OWN_COMMANDS, "--help", "--version"]
    if before[0] == "help":
        command, _ = find_command(before[1:])
        return _topics(word) if len(before) == 1 else _own_words(before[1]) + _keys(command, word)
    if before[0] == "completion":
        return list(SCRIPTS) if len(before) == 1 else []
    command, _ = find_command(before)
    if command is None:
        return [*_own_words(before[0]), "--help"] if len(before) == 1 else []
    if word.startswith("-"):
        from coopmap.cli.arguments import HYDRA_FLAGS

        return ["--help", *(HYDRA_FLAGS if command.through_hydra else ())]
    prefix = re.match(r"[+~]*", word)[0]  # type: ignore[index]
    name, equals, value = word[len(prefix) :].partition("=")
    if equals:
        return [f"{prefix}{name}={found}" for found in _values(command, name, value, before)]
    places = ["latest", *_runs(before), *_files(word)] if command.places else []
    return [*(prefix + found for found in _keys(command, name, "=")), *places]


def _own_words(name: str) -> list[str]:
    return [command.name.split()[1] for command in family(name)]


def _topics(word: str) -> list[str]:
    return [*first_words(), *config_groups(), *_levels(all_keys(Config), word, "")]


def _keys(command: Command | None, word: str, ending: str = "") -> list[str]:
    """Keys and groups of a command, level by level."""
    if command is None:
        return []
    own = _levels(all_keys(command.schema), word, ending) if command.schema else []
    if not command.takes_config:
        return own
    groups = [f"{group}{ending}" for group in config_groups() if "/" not in group or "/" in word]
    return [*own, *groups, *_levels(all_keys(Config), word, ending)]


def _levels(keys: Iterable[Key], word: str, ending: str) -> list[str]:
    """Keys at the level of a word; those with further keys below end with a dot."""
    depth = word.count(".")
    here = [key for key in keys if key.name.count(".") == depth]
    return [f"{key.name}." if key.section else f"{key.name}{ending}" for key in here]


def _values(command: Command, name: str, value: str, before: Sequence[str]) -> list[str]:
    """Values of a key or group; the last one of a list or a sweep."""
    done, comma, last = value.rpartition(",")
    keys = {key.name: key for key in all_keys(command.schema)} if command.schema else {}
    found: list[str] = []
    if name not in keys and command.takes_config:
        keys = {key.name: key for key in all_keys(Config)}
        found = group_choices(name) if name in config_groups() else []
    if not found and name in keys:
        found = _values_of(keys[name], last, before)
    return [f"{done}{comma}{option}" for option in found]


def _values_of(key: Key, value: str, before: Sequence[str]) -> list[str]:
    leaf = key.name.rpartition(".")[2]
    if key.choices:
        return list(key.choices)
    if key.kind.startswith("true"):
        return ["true", "false"]
    if leaf in RUN_KEYS:
        return [*RUN_KEYS[leaf], *_runs(before), *_files(value)]
    return _files(value) if "text" in key.kind else []


def _runs(before: Sequence[str]) -> list[str]:
    """Names of runs below ``runs_root``, as ``experiment/name``."""
    root = next((word.partition("=")[2] for word in before if word.startswith("runs_root=")), "runs")
    return sorted("/".join(file.parts[-3:-1]) for file in Path(root).glob("*/*/config.yaml"))


def _files(start: str) -> list[str]:
    """Paths with this prefix, folders with a trailing slash."""
    folder, slash, name = start.rpartition("/")
    place = os.path.expanduser(f"{folder}{slash}") or "."
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError:
        return []
    shown = [entry for entry in entries if entry.name.startswith(name) and (name or not entry.name.startswith("."))]
    return [f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}" for entry in shown]
