"""What to say of a dataset root without the folder of a split: often it is one level too high, or too deep."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

from coopmap.config.overrides import as_argument
from coopmap.data.opv2v.folder_names import AGENT, FRAME, OTHER_FOLDERS, SPLIT_FOLDERS

SCENARIOS_LOOKED_INTO = 20  # of a folder that may be anything: listings take time on network storage
MOST_NAMED = 4


def remedy(root: Path, split: str, folders: Mapping[str, str] | None = None) -> str:
    """What to do about a root that has no folder for a split: another root, or another name of the folder."""
    present = [name for name in SPLIT_FOLDERS.values() if os.path.isdir(root / name)]
    if not any(holds_frames(root / name) for name in present) and (other := other_root(root, folders)):
        return other
    named = next(
        (folder.name for folder in _folders(root) if folder.name not in present and holds_frames(folder)), None
    )
    if present:
        text = f"Present are: {', '.join(present)}. Unpack the missing part there"
    elif root.name in SPLIT_FOLDERS.values() and named is None:
        return f"data.root is itself a split folder; set it to {root.parent}"
    else:
        text = f"None of {', '.join(SPLIT_FOLDERS.values())} is in {root}; set data.root to the folder that has them"
    return text if named is None else f"{text}, or say which folder it is: {as_argument(f'data.splits.{split}', named)}"


def other_root(root: Path, folders: Mapping[str, str] | None = None) -> str | None:
    """Which folder above or below has the split folders, as advice; ``None`` if none has.

    Args:
        root: as given.
        folders: folder of a split below the root, where it is none of the usual.
    """
    names = {*SPLIT_FOLDERS.values(), *(name for others in OTHER_FOLDERS.values() for name in others)}
    names |= set((folders or {}).values())
    place = Path(os.path.abspath(root))  # as it was written, without following links: "." has a parent then
    for above in (place, *place.parents[:2]):  # a split, a scenario or an agent
        if above.name in names and holds_frames(above):
            what = "itself" if above == place else "inside"
            return f"data.root is {what} a split folder; set it to {_as_given(above.parent, root)}"
    roots = [root / folder.name for folder in _folders(root) if folder.name not in names and _has_split(folder, names)]
    if not roots:
        return None
    more = f" or {len(roots) - MOST_NAMED} more" if len(roots) > MOST_NAMED else ""
    return f"data.root is one level too high; set it to {' or '.join(map(str, roots[:MOST_NAMED]))}{more}"


def holds_frames(folder: Path) -> bool:
    """Whether a folder is laid out as a split, SCENARIO/AGENT/FRAME.yaml, as far as the first scenarios tell."""
    agents = (agent for scenario in islice(_folders(folder), SCENARIOS_LOOKED_INTO) for agent in _folders(scenario))
    return any(FRAME.fullmatch(name) for agent in agents if AGENT.fullmatch(agent.name) for name in _names(agent))


def _has_split(root: Path, names: Collection[str]) -> bool:
    """Whether a split folder with frames is there, or one that an archive put into a folder of its own name."""
    return any(holds_frames(root / name) or holds_frames(root / name / name) for name in names)


def _as_given(folder: Path, root: Path) -> str:
    return str(folder) if root.is_absolute() else os.path.relpath(folder)


def _folders(path: Path) -> list[Path]:
    """Folders in a folder by name, without hidden ones; none where it cannot be listed: this is about advice alone."""
    try:
        with os.scandir(path) as entries:
            return sorted(path / entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def _names(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            yield from (entry.name for entry in entries)
    except OSError:
        return
