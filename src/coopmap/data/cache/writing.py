"""Fills a cache: shard by shard, in several processes, on one machine or several with the same storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
from rich.console import Console

from coopmap.config.data import DataConfig
from coopmap.data.cache.key import require_same, settings_of
from coopmap.data.cache.records import RecordWriter, check_size
from coopmap.data.cache.shards import (
    Description,
    Shard,
    claimed,
    complete,
    describe,
    fingerprints,
    names_of,
    other_frames,
    plan,
    record_name,
    source_paths,
    warn_without_locks,
    what_changed,
)
from coopmap.data.cache.sharing import until_all_is_done
from coopmap.data.cache.stored import pack
from coopmap.data.cache.views import StoredViews, build_stored_views
from coopmap.data.cache_settings import read_settings, settings_path
from coopmap.data.from_files import ViewsFromFiles
from coopmap.data.opv2v import CorruptFrameError, DepthSource, FrameError, FrameRef, SplitIndex
from coopmap.data.vehicles import vehicles_around
from coopmap.report.files import write_json, write_text
from coopmap.report.progress import with_progress

COMMIT_BYTES = 1 << 24
"""Views that are committed at once, those of a frame at least: a few large ones, or all small ones of a shard."""


@dataclass(frozen=True)
class Split:
    """A split to be cached."""

    index: SplitIndex
    depth_source: DepthSource


@dataclass(frozen=True)
class Written:
    """What became of a shard.

    Attributes:
        shard: the shard.
        views: that it holds.
        unreadable: reasons why views could not be made.
    """

    shard: Shard
    views: int
    unreadable: tuple[str, ...]

    @classmethod
    def of(cls, shard: Shard, description: Description) -> Written:
        """What a complete shard says of itself."""
        reasons = tuple(description.unreadable.values())
        return cls(shard, len(description.names) - len(reasons), reasons)


class ShardWriter:
    """Writes shards; can be sent to other processes.

    Args:
        root: of the cache.
        config: what views are like.
        splits: by name.
    """

    def __init__(self, root: Path, config: DataConfig, splits: dict[str, Split]) -> None:
        self.root, self.config, self.splits = root, config, splits
        self._tools: dict[str, tuple[ViewsFromFiles, StoredViews]] = {}

    def __call__(self, shard: Shard) -> Written | None:
        """Write a shard, or the rest of it; ``None`` if another process is at it."""
        with claimed(shard, self.root) as mine:
            if not mine:
                return None
            description = self.current(shard)
            if description is None:
                description = self.write(shard)
                self.finish(shard, description)
        return Written.of(shard, description)

    def current(self, shard: Shard) -> Description | None:
        """The description of a shard that is complete, whole in size and not older than its data."""
        description, split = describe(shard, self.root), self.splits[shard.split]
        if description is None or other_frames(split.index, shard, description):
            return None
        if what_changed(split.index, split.depth_source, shard, description):
            return None
        try:
            check_size(shard.path(self.root), description.file_bytes)
        except CorruptFrameError:
            return None
        return description

    def write(self, shard: Shard) -> Description:
        """Write the records of a shard that this process has claimed; :meth:`finish` makes it complete."""
        cv2.setNumThreads(0)  # processes are the parallelism
        split, path = self.splits[shard.split], shard.path(self.root)
        sources = fingerprints(source_paths(split.index, split.depth_source, shard))
        self._begin(shard, sources)
        unreadable: dict[str, str] = {}
        with closing(RecordWriter(path)) as writer:
            frames = (self._records(writer, frame, split.index.frame(frame), unreadable) for frame in shard.frames)
            write_frames(writer, frames)
        return Description(names_of(split.index, shard), sources, unreadable, path.stat().st_size)

    def finish(self, shard: Shard, description: Description) -> None:
        """Let readers have a shard."""
        complete(shard, self.root, description)
        shard.path(self.root, ".begun").unlink(missing_ok=True)

    def _begin(self, shard: Shard, sources: list[list[int]]) -> None:
        """Keep the records of a killed process if they come from the same files, else start with none."""
        begun = shard.path(self.root, ".begun")
        state = repr(sources)
        if describe(shard, self.root) is not None or not begun.is_file() or begun.read_text() != state:
            shard.path(self.root, ".json").unlink(missing_ok=True)  # first, so that nobody takes what follows for whole
            shard.path(self.root).unlink(missing_ok=True)
            write_text(state, begun)

    def _records(self, writer: RecordWriter, frame: int, ref: FrameRef, unreadable: dict[str, str]) -> dict[str, bytes]:
        """All views of a frame, or none if they are written already."""
        if all(writer.holds(record_name(ref, agent)) for agent in ref.agents):
            return {}
        files, views = self._tools_of(ref.split)
        try:
            read = files.read(frame, ref, ref.agents)
        except FrameError:
            read = {}
            for agent in ref.agents:
                try:
                    read |= files.read(frame, ref, [agent])
                except FrameError as error:
                    unreadable[record_name(ref, agent)] = str(error)
        # samples of an agent whose file lists none have no masks; those of the others do
        known = {agent: record.metadata for agent, record in read.items() if record.metadata.vehicles is not None}
        vehicles = vehicles_around(known)
        return {
            record_name(ref, agent): pack(record.metadata, *views.content(agent, record, vehicles))
            for agent, record in read.items()
        }

    def _tools_of(self, split: str) -> tuple[ViewsFromFiles, StoredViews]:
        if split not in self._tools:
            source = self.splits[split]
            files = ViewsFromFiles(source.index, source.depth_source, self.config, with_vehicles=True)
            self._tools[split] = files, build_stored_views(self.config, source.depth_source.is_dense)
        return self._tools[split]


def write_frames(writer: RecordWriter, frames: Iterable[Mapping[str, bytes]]) -> None:
    """Write the views of frames, :data:`COMMIT_BYTES` at once."""
    records: dict[str, bytes] = {}
    for views in frames:
        records |= views
        if sum(map(len, records.values())) >= COMMIT_BYTES:
            writer.write(records)
            records = {}
    writer.write(records)


def fill(root: Path, config: DataConfig, splits: dict[str, Split], num_workers: int | None = None) -> list[Written]:
    """Write all shards that are missing, unfinished or older than their data.

    Args:
        root: of the cache.
        config: what views are like.
        splits: by name.
        num_workers: processes; ``None`` = one per core.

    Returns:
        All shards; those that another process had at hand are waited for.

    Raises:
        ConfigError: if the cache was made with other settings.
    """
    agree_on_settings(root, config, splits)
    warn_without_locks(root)
    writer = ShardWriter(root, config, splits)
    shards = [shard for split in splits.values() for shard in plan(split.index)]
    views = {shard: len(names_of(splits[shard.split].index, shard)) for shard in shards}
    done, total = until_all_is_done(writer, shards, num_workers), sum(views.values())
    return list(with_progress(done, "Writing", total, "views", Console(stderr=True), lambda each: views[each.shard]))


def agree_on_settings(root: Path, config: DataConfig, splits: dict[str, Split]) -> None:
    """Write down what the splits of a cache are made with, or refuse what differs from what is written.

    Raises:
        ConfigError: if the cache was made with other settings.
    """
    for name, split in splits.items():
        settings, stored = settings_of(config, split.depth_source), read_settings(root, name)
        if stored is None:
            write_json(settings, settings_path(root, name))
        else:
            require_same(root, stored, settings)
