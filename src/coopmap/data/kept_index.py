"""The index of a split, kept on disk: opening it again looks at folders, not at every file in them.

Adding or removing a file changes the times of its folder, so an index counts as long as the names and times of all
agent folders are those that it was made from. Of the two times the later counts: ``tar``, ``unzip`` and ``rsync -a``
set that of the content back when they have added files, which changes that of the folder itself.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from coopmap.data.opv2v import SplitIndex
from coopmap.data.opv2v.index import agent_folders, entries_of, mention_strange_entries, split_folder
from coopmap.geometry.stored_arrays import load_arrays, store_arrays

ARRAYS = ("scenarios", "agents", "frame_names", "frame_scenario", "agent_start", "frame_agents")

VERSION = 3
"""Of what is kept: an index of the first may lack agents whose folders could not be listed, one of the second holds
what entries of ``data.exclude`` with the split's own name leave out."""

SETTLED_S = 2.0
"""A folder that changed so shortly before the scan may change again without a change of its time."""


def kept_index(
    root: Path | str,
    split: str,
    include_rsu: bool = False,
    exclude: Collection[str] = (),
    cache_dir: Path | str | None = None,
    folders: Mapping[str, str] | None = None,
) -> SplitIndex:
    """:meth:`SplitIndex.build`, or what it gave before; see there for errors.

    Args:
        root: see there.
        split: see there.
        include_rsu: see there.
        exclude: see there.
        cache_dir: folder that the index is kept in; ``None`` = scan the files.
        folders: see there.
    """
    if cache_dir is None:
        return SplitIndex.build(root, split, include_rsu, exclude, folders)
    root = Path(root).expanduser()
    path, newest = index_path(root, split, include_rsu, exclude, cache_dir, folders)
    folder = split_folder(root, split, folders)
    if (kept := _load(path, root, split, folder)) is not None:
        mention_strange_entries(entries_of(exclude, split, folder), split, root / folder)
        return kept
    started = time.time()
    index = SplitIndex.build(root, split, include_rsu, exclude, folders)
    unchanged = index_path(root, split, include_rsu, exclude, cache_dir, folders)[0] == path
    # a folder that could not be listed, as network storage has it at times, recovers without a change of its times
    if unchanged and index.is_whole and newest < started - SETTLED_S:
        keep(index, path)
    return index


def keep(index: SplitIndex, path: Path) -> None:
    """Write an index, so that other processes never see half a file."""
    store_arrays(path, {name: getattr(index, name) for name in ARRAYS})


def _load(path: Path, root: Path, split: str, folder: str) -> SplitIndex | None:
    arrays: dict[str, Any] | None = load_arrays(path, ARRAYS)
    return SplitIndex(root, split, **arrays, folder=folder) if arrays is not None else None


def index_path(
    root: Path,
    split: str,
    include_rsu: bool,
    exclude: Collection[str],
    cache_dir: Path | str,
    folders: Mapping[str, str] | None = None,
) -> tuple[Path, float]:
    """File named after everything that decides the index, and when an agent folder changed last (seconds).

    A folder that cannot be looked at counts as changing for ever.
    """
    settings = (VERSION, str(root.resolve()), split, include_rsu, sorted(exclude), ARRAYS)
    digest = hashlib.sha256(repr(settings).encode())
    newest = 0.0
    for scenario, agent, folder in agent_folders(root, split, include_rsu, folders):
        changed = _changed_ns(folder)
        newest = max(newest, math.inf if changed is None else changed)
        digest.update(f"{scenario}/{agent} {changed}\n".encode())
    return Path(cache_dir).expanduser() / f"index_{split}_{digest.hexdigest()[:16]}.npz", newest / 1e9


def _changed_ns(folder: Path) -> int | None:
    """Time of the last change of a folder or of what is in it; ``None`` if it cannot be looked at."""
    try:
        status = os.stat(folder)
    except OSError:  # the scan says so
        return None
    return max(status.st_mtime_ns, status.st_ctime_ns)
