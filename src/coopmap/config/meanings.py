"""What every key means, read from the dataclasses: docstrings, types, defaults and choices."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from coopmap.config.checks import ConfigError, recorded_choices

TYPE_WORDS = {int: "integer", float: "number", bool: "true | false", str: "text", Any: "any", type(None): "null"}


@dataclass(frozen=True)
class Key:
    """A key of a structured config.

    Attributes:
        name: dotted.
        kind: its type in words.
        default: as written on the command line; empty for a section.
        meaning: from the docstring; empty where there is none.
        choices: all allowed values, or empty if there is no such list.
        annotation: its type.
        section: the dataclass of the keys below it.
    """

    name: str
    kind: str
    default: str
    meaning: str
    choices: tuple[str, ...]
    annotation: Any
    section: type | None = None


def describe(schema: type, prefix: str = "") -> list[Key]:
    """The keys directly in a structured config, in order.

    Args:
        schema: its dataclass.
        prefix: stands before their names, such as ``data.``.
    """
    hints, texts = get_type_hints(schema), attribute_texts(schema)
    known = {key.removeprefix(prefix): choices for key, choices in known_choices(schema).items()}
    described = []
    for field in fields(schema):
        section = dataclass_in(hints[field.name])
        choices = next((found for key, found in known.items() if key in (field.name, prefix + field.name)), ())
        meaning = texts.get(field.name, "") or (summary(section) if section else "")
        described.append(
            Key(
                prefix + field.name,
                type_words(hints[field.name]),
                "" if section else _default(field),
                meaning,
                choices,
                hints[field.name],
                section,
            )
        )
    return described


def all_keys(schema: type, prefix: str = "") -> Iterator[Key]:
    """All keys of a structured config, those of its sections included."""
    for key in describe(schema, prefix):
        yield key
        if key.section is not None:
            yield from all_keys(key.section, f"{key.name}.")


def known_choices(schema: type) -> dict[str, tuple[str, ...]]:
    """Choices by key, as the dataclass's own check names it, from the checks that its defaults go through."""
    with recorded_choices() as found, suppress(ConfigError, TypeError):
        schema()
    return found


def type_words(annotation: Any) -> str:
    """A type in words."""
    if dataclass_in(annotation) is not None:
        return "section"
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(type_words(option) for option in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {type_words(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"{{name: {type_words(get_args(annotation)[1])}}}"
    return TYPE_WORDS.get(annotation, "any")


def dataclass_in(annotation: Any) -> type | None:
    """The dataclass in ``X`` or ``X | None``, if there is one."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((option for option in options if isinstance(option, type) and is_dataclass(option)), None)


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return as_value(field.default)
    return as_value(field.default_factory()) if field.default_factory is not MISSING else ""


def as_value(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_value, value))}]"
    return "''" if value == "" else str(value)


def summary(schema: type) -> str:
    """First paragraph of a dataclass's docstring."""
    return plain(_docstring(schema).partition("\n\n")[0])


def text(schema: type) -> str:
    """The paragraphs of a dataclass's docstring before its attributes, the first left out."""
    before = re.split(r"^Attributes:$", _docstring(schema), flags=re.MULTILINE)[0]
    return "\n\n".join(plain(paragraph) for paragraph in before.strip().split("\n\n")[1:])


def attribute_texts(schema: type) -> dict[str, str]:
    """Meaning of each key, from the ``Attributes:`` of a dataclass and of those that it extends."""
    texts: dict[str, str] = {}
    for part in reversed(schema.__mro__):
        if is_dataclass(part):
            texts |= _attributes(_docstring(part))
    return texts


def _docstring(schema: type) -> str:
    return inspect.cleandoc(schema.__dict__.get("__doc__") or "")


def _attributes(docstring: str) -> dict[str, str]:
    """Entries of a Google-style ``Attributes:`` section; ``width, height: ...`` is an entry of both."""
    _, _, section = docstring.partition("Attributes:\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        elif line.startswith("     "):
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return {name: plain(found) for name, found in texts.items()}


def plain(markup: str) -> str:
    """Text without reStructuredText markup, on one line."""
    markup = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", markup)
    return " ".join(markup.replace("``", "").split())
