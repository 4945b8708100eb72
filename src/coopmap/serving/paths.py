"""From the path of a request to a file or folder that may be shown, and what a folder holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

SKIPPED = ("wandb", "__pycache__")
"""Folders in which no report is looked for."""
MOST_PAGES = 500
"""That a listing shows."""


@dataclass(frozen=True)
class Entry:
    """A line of a listing.

    Attributes:
        name: as shown; of a folder with a slash.
        address: relative, quoted.
        size: in words; empty for a folder.
        modified: in words.
    """

    name: str
    address: str
    size: str
    modified: str


def find_inside(root: Path, address: str) -> tuple[Path, tuple[str, ...]] | None:
    """The file or folder of a request, and the parts of its path; ``None`` if there is none that may be shown.

    Hidden ones may not, nor what lies outside ``root`` once all links are followed.

    Args:
        root: the served folder, resolved.
        address: as in the request line.
    """
    try:
        text = os.fsdecode(unquote_to_bytes(urlsplit(address).path))  # names need not be UTF-8
    except ValueError:
        return None
    parts = tuple(part for part in text.split("/") if part)
    if "\0" in text or any(part.startswith(".") for part in parts):
        return None
    found = resolve_inside(root, root.joinpath(*parts))
    return None if found is None else (found, parts)


def resolve_inside(root: Path, place: Path) -> Path | None:
    """A place without links, if it exists, lies in ``root`` and is not hidden there."""
    try:
        real = place.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return None
    hidden = place.name.startswith(".") and place != root
    if hidden or not real.is_relative_to(root):
        return None
    if any(part.startswith(".") for part in real.relative_to(root).parts):
        return None
    return real if real.is_file() or real.is_dir() else None


def entries(root: Path, folder: Path) -> list[Entry]:
    """What a folder holds, folders first."""
    places = sorted(folder.iterdir(), key=lambda place: (not place.is_dir(), place.name.casefold()))
    found = (_entry(place.name, real) for place in places if (real := resolve_inside(root, place)) is not None)
    return [entry for entry in found if entry is not None]


def pages(folder: Path) -> tuple[list[Entry], int]:
    """HTML pages in a folder and below, the newest first, and how many more there are; links are not followed."""
    found = sorted(_pages(folder), key=_changed_at, reverse=True)
    shown = [_entry(place.relative_to(folder).as_posix(), place) for place in found[:MOST_PAGES]]
    return [entry for entry in shown if entry is not None], len(found) - len(shown)


def _changed_at(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def _pages(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
        for name in files:
            file = Path(place, name)
            if name.endswith(".html") and not name.startswith(".") and file.is_file() and not file.is_symlink():
                yield file


def _entry(name: str, real: Path) -> Entry | None:
    """What a listing shows; ``None`` of what has just gone."""
    try:
        facts = real.stat()
    except OSError:
        return None
    # A name that is no UTF-8 (surrogates) is shown with replacement characters; its address stays exact.
    shown = os.fsencode(name).decode("utf-8", "replace")
    address = "./" + quote(os.fsencode(name))
    modified = datetime.fromtimestamp(facts.st_mtime).strftime("%Y-%m-%d %H:%M")
    if real.is_dir():
        return Entry(f"{shown}/", f"{address}/", "", modified)
    return Entry(shown, address, _size(facts.st_size), modified)


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"
