"""Help, made from the table of commands, the docstrings of the configuration, and the comments of its files."""

from __future__ import annotations

import difflib
import shutil
import textwrap
from collections.abc import Iterable, Sequence

from coopmap.cli.command import Command
from coopmap.cli.commands import FAMILIES, OWN_COMMANDS, family, find_command, first_words
from coopmap.config.checks import ConfigError
from coopmap.config.groups import choice_meaning, config_groups, group_choices
from coopmap.config.meanings import Key, all_keys, describe, summary, text
from coopmap.config.schema import Config

WIDEST = 100
WIDEST_NAME = 22


def overview() -> str:
    """``coopmap help``: the table of commands."""
    return _page(
        "coopmap COMMAND [group=choice ...] [key=value ...]",
        "Train MapAnything to recover where connected vehicles are, and what they see.",
        _section("Commands", _rows((first_words() | OWN_COMMANDS).items())),
        "coopmap help COMMAND explains one. python -m coopmap COMMAND does the same as coopmap COMMAND.",
    )


def short_usage(command: Command) -> str:
    """Two lines for a command without arguments."""
    return f"{_wrapped('usage: ' + command.usage, '       ')}\ncoopmap help {command.name} explains it."


def family_help(name: str) -> str:
    """Help for a word that several commands start with."""
    commands = {command.name: command.summary for command in family(name)}
    return _page(
        f"coopmap {name} COMMAND [key=value ...]",
        _sentence(FAMILIES[name]),
        _section("Commands", _rows(commands.items())),
        f"coopmap help {name} COMMAND explains one.",
    )


def command_help(command: Command) -> str:
    """Help for a command."""
    parts = [command.usage, _sentence(command.summary)]
    if command.schema is not None:
        parts.append(_section("Keys", _key_rows(describe(command.schema))))
        sections = {key.name: key.section for key in all_keys(command.schema) if key.section is not None}
        parts += [_section(f"Keys of {name}", _key_rows(describe(sections[name], f"{name}."))) for name in sections]
    if command.through_hydra:
        parts += [*_group_sections(), *_config_sections()]
    elif command.takes_config:
        parts.append(
            "Keys of the training configuration are taken as well, such as data.root=/data/opv2v, and its groups where "
            "no run is named, which has its own; coopmap help train lists them."
        )
    parts.append(_section("Examples", "\n".join(f"  coopmap {line}\n      {what}" for line, what in command.examples)))
    if command.through_hydra:
        parts.append(
            "machine=auto (the default) detects the hardware. -m sweeps over comma-separated values, --cfg job shows "
            "the composed configuration (with --resolve, interpolations are filled in), --info how it was composed."
        )
    parts.append(command.notes)
    return _page(*parts)


def topic(words: Sequence[str]) -> str:
    """``coopmap help WORDS``: a command, a group, a group of keys, or a key.

    Raises:
        ConfigError: there is no such thing.
    """
    if not words:
        return overview()
    words = _with_key_apart(words)
    command, length = find_command(words)
    if command is not None and length == len(words):
        return command_help(command)
    if len(words) == 1 and words[0] in FAMILIES:
        return family_help(words[0])
    if command is not None and len(words) == length + 1:
        return _own_key(command, words[-1])
    return _config_topic(words[0]) if len(words) == 1 else _no_topic(" ".join(words))


def _with_key_apart(words: Sequence[str]) -> list[str]:
    """``evaluate split`` for ``evaluate.split``, unless that is a key of the configuration."""
    *before, last = words
    name, _, key = last.partition(".")
    is_own = last not in topics() and key and find_command([*before, name])[1] == len(words)
    return [*before, name, key] if is_own else list(words)


def topics() -> list[str]:
    """Everything there is help for."""
    commands = [command for word in first_words() for command in [word, *(item.name for item in family(word))]]
    return [*commands, *config_groups(), *(key.name for key in all_keys(Config))]


def _own_key(command: Command, name: str) -> str:
    found = {key.name: key for key in all_keys(command.schema)} if command.schema else {}
    if name in found:
        return _page(f"{name}=..., a key of coopmap {command.name}", _key_text(found[name]))
    known = [*found, *(topics() if command.takes_config else ())]
    return _config_topic(name, known) if command.takes_config else _no_topic(name, known)


def _config_topic(name: str, known: Sequence[str] = ()) -> str:
    group, dotted = name.replace(".", "/"), name.replace("/", ".")
    key = next((key for key in all_keys(Config) if key.name == dotted), None)
    parts = []
    if group in config_groups():
        meanings = [(choice, choice_meaning(group, choice)) for choice in group_choices(group)]
        parts.append(_section(f"Choices of {group}", _rows(meanings)))
    if key is not None and key.section is not None:
        parts = [_sentence(summary(key.section)), text(key.section), *parts]
        parts.append(_section(f"Keys of {dotted}", _key_rows(describe(key.section, f"{dotted}."))))
    elif key is not None and not parts:
        return _page(f"{dotted}=...", _key_text(key))
    elif key is not None:
        parts.insert(0, _key_text(key))
    return _page(f"{group}=CHOICE" if group in config_groups() else dotted, *parts) if parts else _no_topic(name, known)


def _no_topic(name: str, known: Sequence[str] = ()) -> str:
    if set(name.split()) <= set(topics()):
        alone = ", ".join(f"coopmap help {word}" for word in name.split())
        raise ConfigError(f"help explains one command, group or key at a time: {alone}")
    near = difflib.get_close_matches(name, known or topics(), n=3, cutoff=0.6)
    ending = [key for key in known or topics() if key.rpartition(".")[2] == name][:3]
    found = list(dict.fromkeys([*ending, *near]))
    hint = f"did you mean {' or '.join(found)}?" if found else "coopmap help lists commands, coopmap help train keys"
    raise ConfigError(f"help {name}: there is no such command, group or key; {hint}")


def _group_sections() -> list[str]:
    """Every group with its choices, a line each."""
    parts = ["Groups, with their choices (group=choice):"]
    for group in config_groups():
        rows = [(choice, _first_sentence(choice_meaning(group, choice))) for choice in group_choices(group)]
        parts.append(_section(group, _rows(rows)))
    return parts


def _config_sections() -> list[str]:
    """The keys at the top of the configuration, and the sections below them."""
    keys = describe(Config)
    sections = [(f"{key.name}.*", _first_sentence(key.meaning)) for key in keys if key.section is not None]
    return [
        _section("Keys (key=value)", _key_rows([key for key in keys if key.section is None])),
        _section("Groups of keys (coopmap help NAME shows one in full)", _rows(sections)),
    ]


def _key_rows(keys: Iterable[Key]) -> str:
    rows = []
    for key in keys:
        name = key.name.rpartition(".")[2]
        if key.section is not None:
            rows.append((f"{name}.*", f"{key.meaning} [coopmap help {key.name}]" if "." in key.name else key.meaning))
        else:
            rows.append((name, _key_text(key)))
    return _rows(rows)


def _key_text(key: Key) -> str:
    return f"{key.meaning.removesuffix('.')} {_facts(key)}"


def _facts(key: Key) -> str:
    """``[bowl | sphere | infinite; default: bowl]``."""
    kind = " | ".join(key.choices) if key.choices else key.kind.removesuffix(" | null")
    if key.choices and key.kind.startswith("list"):
        kind = f"list of {kind}"
    return f"[{kind}; default: {key.default}]"


def _sentence(words: str) -> str:
    """With a capital and a full stop."""
    words = words.strip()
    start = words[:1].upper() + words[1:]
    return start if not start or start[-1] in ".!?:" else f"{start}."


def _first_sentence(words: str) -> str:
    end = words.find(". ")
    return words if end < 0 else words[: end + 1]


def _page(*parts: str) -> str:
    """Paragraphs, those that are not laid out yet wrapped."""
    first, *others = parts
    shown = [_wrapped(f"usage: {first}" if first.startswith("coopmap ") else first, "       ")]
    shown += [part if "\n" in part else _wrapped(part) for part in others if part]
    return "\n\n".join(shown)


def _section(title: str, body: str) -> str:
    return f"{title}:\n{body}" if body else ""


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """Names, with their meaning beside or below them."""
    rows = list(rows)
    column = min(max((len(name) for name, _ in rows), default=0), WIDEST_NAME)
    lines = []
    for name, meaning in rows:
        indent = " " * (column + 4)
        wrapped = textwrap.wrap(meaning, _width() - len(indent), break_on_hyphens=False) or [""]
        if len(name) > column:
            lines.append(f"  {name}")
            lines += [indent + line for line in wrapped if line]
        else:
            lines.append(f"  {name:{column}}  {wrapped[0]}".rstrip())
            lines += [indent + line for line in wrapped[1:]]
    return "\n".join(lines)


def _wrapped(paragraphs: str, indent: str = "") -> str:
    return "\n\n".join(
        textwrap.fill(paragraph, _width(), subsequent_indent=indent, break_on_hyphens=False)
        for paragraph in paragraphs.split("\n\n")
    )


def _width() -> int:
    """Of the terminal; 80 columns where there is none."""
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, WIDEST))
