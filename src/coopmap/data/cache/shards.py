"""Shards: which views each holds, whether it is complete, and whether its sources have changed.

A shard is ``SPLIT/SCENARIO/NUMBER.lmdb`` and, once it is complete, ``NUMBER.json`` beside it: a part of a long
scenario, or several short ones in a row, named after the first of them. A process that writes one holds a lock on
``NUMBER.lock``, which the system releases when the process ends, however it ends. Without locks on the file system, one
command at a time may fill a cache: it gives each shard to one of its workers.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np

from coopmap.data.opv2v import SPLIT_FOLDERS, DepthSource, FrameRef, SplitIndex
from coopmap.data.opv2v.images import image_file
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.report.files import write_json

log = logging.getLogger(__name__)

_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

FRAMES_PER_SHARD = 32
"""At most. About a hundred views of some 3 MB: small enough to share the work, few enough to open."""


@dataclass(frozen=True)
class Shard:
    """Consecutive frames: some of one scenario, or all of several.

    Attributes:
        split: of the index.
        scenario: folder name, of the first scenario.
        number: of the shard in its scenario.
        frames: numbers of the frames in the index.
    """

    split: str
    scenario: str
    number: int
    frames: tuple[int, ...]

    def path(self, root: Path, suffix: str = ".lmdb") -> Path:
        """Of the records, or of what lies beside them."""
        return split_folder(root, self.split) / self.scenario / f"{self.number:03d}{suffix}"


@dataclass(frozen=True)
class Description:
    """What a complete shard says about itself.

    Attributes:
        names: ``SCENARIO/FRAME/AGENT`` of all views.
        sources: size and time of change (ns) of every source file, see :func:`source_paths`.
        unreadable: reason, for views that could not be made.
        file_bytes: size of the LMDB file.
    """

    names: list[str]
    sources: list[list[int]]
    unreadable: dict[str, str]
    file_bytes: int


def split_folder(root: Path, split: str) -> Path:
    """Folder of a split in a cache."""
    return root / SPLIT_FOLDERS[split]


def record_name(ref: FrameRef, agent: str) -> str:
    """Of a view in its shard."""
    return f"{ref.scenario}/{ref.frame}/{agent}"


def plan(index: SplitIndex) -> list[Shard]:
    """The shards of a split.

    Short scenarios share one: a file with two commits to disk takes longer than a few small views. A scenario that is
    added or left out moves the short ones after it, and no others.
    """
    shards: list[Shard] = []
    together: list[int] = []

    def end_shard() -> None:
        if together:
            shards.append(Shard(index.split, _scenario(index, together[0]), 0, tuple(together)))
            together.clear()

    for _, group in groupby(range(len(index)), key=lambda frame: int(index.frame_scenario[frame])):
        frames = list(group)
        if len(together) + len(frames) > FRAMES_PER_SHARD:
            end_shard()
        if len(frames) <= FRAMES_PER_SHARD:
            together += frames
        else:
            starts, name = range(0, len(frames), FRAMES_PER_SHARD), _scenario(index, frames[0])
            parts = (tuple(frames[start : start + FRAMES_PER_SHARD]) for start in starts)
            shards += [Shard(index.split, name, number, part) for number, part in enumerate(parts)]
    end_shard()
    return shards


def _scenario(index: SplitIndex, frame: int) -> str:
    return index.scenarios[index.frame_scenario[frame]].decode()


def source_paths(index: SplitIndex, depth_source: DepthSource, shard: Shard) -> list[Path]:
    """The files that decide the content of a shard."""
    paths = []
    for ref in (index.frame(frame) for frame in shard.frames):
        for agent in ref.agents:
            paths.append(index.yaml_path(ref, agent))
            paths += [image_file(index.image_path(ref, agent, camera)) for camera in OPV2V_CAMERA_OF_SLOT]
            paths += depth_source.paths(ref, agent)
    return paths


def fingerprints(paths: Sequence[Path]) -> list[list[int]]:
    """Size and time of change (ns) of each file; -1 where there is none."""

    def of(path: Path) -> list[int]:
        try:
            status = path.stat()
        except OSError:
            return [-1, -1]
        return [status.st_size, status.st_mtime_ns]

    return [of(path) for path in paths]


def names_of(index: SplitIndex, shard: Shard) -> list[str]:
    """``SCENARIO/FRAME/AGENT`` of all views of a shard."""
    refs = [index.frame(frame) for frame in shard.frames]
    return [record_name(ref, agent) for ref in refs for agent in ref.agents]


def leftovers(root: Path, split: str, planned: Iterable[Shard]) -> list[Path]:
    """Files of a split's shards, complete or not, that are none of the planned.

    Shards are named after their first scenario, so that one that comes or goes may give those after it other names.
    """
    known = {shard.path(root) for shard in planned}
    return sorted(set(split_folder(root, split).glob("*/*.lmdb")) - known)


def describe(shard: Shard, root: Path) -> Description | None:
    """The description of a shard; ``None`` if it is not complete."""
    return description_beside(shard.path(root))


def description_beside(path: Path) -> Description | None:
    """The description of the shard in an LMDB file; ``None`` if it is not complete."""
    try:
        content: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return Description(**content)
    except (OSError, ValueError, TypeError):
        return None


def complete(shard: Shard, root: Path, description: Description) -> None:
    """Mark a shard as complete, durably."""
    write_json(vars(description), shard.path(root, ".json"))


def what_changed(index: SplitIndex, depth_source: DepthSource, shard: Shard, description: Description) -> str | None:
    """What is different in its files from when a shard of the same frames was written; ``None`` if nothing is."""
    paths = source_paths(index, depth_source, shard)
    now, before = np.array(fingerprints(paths)), np.array(description.sources)
    if now.shape != before.shape:
        return f"files of {shard.split}/{shard.scenario}"
    changed = np.flatnonzero((now != before).any(axis=1))
    return f"size or time of change of {paths[changed[0]]}" if len(changed) else None


def other_frames(index: SplitIndex, shard: Shard, description: Description) -> str | None:
    """``SPLIT/SCENARIO`` whose frames or agents are not those that a shard has; ``None`` without any."""
    other = set(description.names) ^ set(names_of(index, shard))
    return f"{shard.split}/{min(other).split('/')[0]}" if other else None


@contextmanager
def claimed(shard: Shard, root: Path) -> Iterator[bool]:
    """Whether this process has the shard to itself, within the context."""
    path = shard.path(root, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            locks = _lock(file)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            if locks:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile holds the file open


def warn_without_locks(root: Path) -> None:
    """Say so if the file system of a cache has no locks: each command then claims what another has at hand."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file, suppress(BlockingIOError):
        if not _lock(file):
            log.warning("%s: the file system has no locks (flock); fill it with one command at a time, which may have "
                        "several workers", root)  # fmt: skip


def _lock(file: IO[Any]) -> bool:
    """Lock a file; ``False`` if its file system has no locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return False
        raise
    return True
