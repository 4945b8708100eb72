"""Metadata files as plain values: YAML or JSON, in bounded time and memory, whatever the file holds.

Values of tags that are mere containers and numbers (``!!python/tuple``, ...) are read; a value of any other tag becomes
an :class:`UnknownTag`, which is an error only if somebody asks for it. No code is ever run.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coopmap.data.opv2v.errors import CorruptFrameError
from coopmap.data.opv2v.files import COPY_AGAIN, guarded, read_bytes

MAX_BYTES = 1_000_000
"""Some ten times the largest file of the dataset; a million bytes are at most half a million values."""

MAX_DEPTH = 64
MAX_NODES = 500_000
"""With each alias counted as what it stands for."""

AS_UTF8 = "Save it as UTF-8"
DUMP_AGAIN = "Write the file again from plain lists and numbers: yaml.safe_dump with array.tolist()"

_SHORT = 65_536
_LONGEST_SCALAR = 4096
_VEHICLES = re.compile(rb"^vehicles:.*\n?(?:[ #-].*\n?|\n)*", re.MULTILINE)
_IS_RSU = re.compile(rb"^RSU: *true", re.MULTILINE | re.IGNORECASE)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PYTHON = "tag:yaml.org,2002:python/"


@dataclass(frozen=True)
class UnknownTag:
    """A value that only the program which wrote it could build."""

    tag: str


# libyaml is some ten times faster; both loaders build plain values only, never objects.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """Plain values, and harmless tags of PyYAML's."""


class _Bounded(_Loader):
    """For files that nest or repeat more than metadata do: refuses where composing would not end well."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH}-fold")

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > MAX_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES:,} values")
        return self.construct_document(node)


def _expanded_size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Number of nodes that a node stands for, aliases spelled out."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if (size := known.get(id(node), -1)) is None:
        raise yaml.YAMLError("an alias stands for something that contains it")
    if size >= 0:
        return size
    known[id(node)] = None
    children = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    size = 1 + sum(_expanded_size(child, known) for child in children)
    known[id(node)] = min(size, 1 << 60)
    return size


def _add_harmless_tags() -> None:
    constructors = {
        "tuple": _Base.construct_yaml_seq,
        "list": _Base.construct_yaml_seq,
        "dict": _Base.construct_yaml_map,
        "str": _Base.construct_yaml_str,
        "unicode": _Base.construct_yaml_str,
        "int": _Base.construct_yaml_int,
        "long": _Base.construct_yaml_int,
        "float": _Base.construct_yaml_float,
        "bool": _Base.construct_yaml_bool,
        "none": _Base.construct_yaml_null,
    }
    for name, constructor in constructors.items():
        _Loader.add_constructor(_PYTHON + name, constructor)
    _Loader.add_constructor(None, lambda loader, node: UnknownTag(node.tag.replace("tag:yaml.org,2002:", "!!")))


_add_harmless_tags()


@guarded("YAML file")
def load_metadata(path: Path, with_vehicles: bool = True) -> Mapping[Any, Any]:
    """Top-level mapping of a metadata file.

    Args:
        path: YAML or JSON; UTF-8, or what its byte order mark says.
        with_vehicles: otherwise the entry ``vehicles`` may be missing, unless the file is of a road-side unit, which
            finds the ground by the vehicles on it.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is no YAML mapping, or larger or deeper than metadata are.
    """
    text = read_text(path)
    if not with_vehicles and not _IS_RSU.search(text):
        text = _VEHICLES.sub(b"", text)
    content = parse(path, text)
    if isinstance(content, UnknownTag):
        raise CorruptFrameError(path, f"is of the tag {content.tag} as a whole", DUMP_AGAIN)
    if not isinstance(content, Mapping):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise CorruptFrameError(path, f"holds no YAML mapping ({found}), perhaps cut off or empty", COPY_AGAIN)
    return content


def read_text(path: Path) -> bytes:
    """UTF-8 text of a metadata file, without byte order mark.

    Raises:
        FrameError: if it cannot be read, is too large, or of another encoding.
    """
    data = read_bytes(path, MAX_BYTES)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding).encode()
            except UnicodeError as error:
                raise CorruptFrameError(path, f"is marked as {encoding} but is none ({error})", AS_UTF8) from None
    if b"\0" in data:
        if not data.strip(b"\0"):
            raise CorruptFrameError(path, "holds nothing but zeros, as after a crash of the disk", COPY_AGAIN)
        what = "UTF-16 without its mark" if data[:40].count(0) > 10 else "binary"
        raise CorruptFrameError(path, f"is no text (zero bytes: {what})", AS_UTF8)
    return data


def parse(path: Path, text: bytes) -> Any:
    """Values of YAML or JSON text.

    Raises:
        CorruptFrameError: if it is neither, or nests or repeats without measure.
    """
    if text[:1] == b"{":  # not all JSON is YAML: tabs
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    if len(text) > _SHORT and max(map(len, text.translate(bytes.maketrans(b",[]{}", b"     ")).split())) > (
        _LONGEST_SCALAR
    ):
        raise CorruptFrameError(path, f"holds a value of more than {_LONGEST_SCALAR} characters", DUMP_AGAIN)
    try:
        return yaml.load(text, Loader=_Loader if _is_plain(text) else _Bounded)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error)
        if mark is not None and mark.line + 1 >= text.rstrip().count(b"\n") + 1:
            raise CorruptFrameError(path, f"not valid YAML{where}, perhaps cut off ({why})", COPY_AGAIN) from error
        raise CorruptFrameError(path, f"not valid YAML{where} ({why})", "Repair that line, or " + _lower(DUMP_AGAIN)) \
            from error  # fmt: skip


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _is_plain(text: bytes) -> bool:
    """Whether a text surely nests few-fold and has no aliases, as all metadata do; takes a hundredth of parsing."""
    if b"&" in text or b"?" in text or b"\n" + b" " * MAX_DEPTH in text:
        return False
    if b"-----" in text.translate(None, b" \t"):  # - - - - -: lists in lists on one line
        return False
    brackets = text.translate(None, _ALL_BUT_BRACKETS)
    for _ in range(8):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets
