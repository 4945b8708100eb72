"""Views from a cache, and from files what it does not hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.cache.key import require_same, settings_of
from coopmap.data.cache.records import check_size, read_record
from coopmap.data.cache.shards import (
    Description,
    Shard,
    describe,
    description_beside,
    leftovers,
    names_of,
    other_frames,
    plan,
    record_name,
    what_changed,
)
from coopmap.data.cache.stored import StoredRecord, unpack
from coopmap.data.cache.views import build_stored_views
from coopmap.data.cache_settings import read_settings
from coopmap.data.from_files import ViewMaker, ViewsFromFiles
from coopmap.data.opv2v import DepthSource, FrameRef, SplitIndex
from coopmap.data.splits import lacks_images, without_images
from coopmap.data.views import Record

log = logging.getLogger(__name__)

_STAT_THREADS = 16  # asking for times of change waits, on network storage

AGAIN = "The command that filled it, with the same options, writes what has changed"


class CachedViews:
    """Reads records from the complete shards of a split.

    Args:
        files: reads what the cache does not hold; its index and configuration are those of the cache.

    Raises:
        ConfigError: if there is no such folder, or the cache was made from other data or with other settings.
        CorruptFrameError: if a shard is cut off.
    """

    def __init__(self, files: ViewsFromFiles) -> None:
        assert files.config.cache_root is not None
        self.files = files
        self.root = Path(files.config.cache_root).expanduser()
        self.views: ViewMaker = build_stored_views(files.config, files.depth_source.is_dense)
        self._place = _current_shards(self.root, files.index, files.depth_source, files.config)

    def read(self, frame: int, ref: FrameRef, agents: Sequence[str]) -> dict[str, Record]:
        """See :class:`~coopmap.data.from_files.ReadyViews`."""
        stored = {agent: self._stored(frame, ref, agent) for agent in agents}
        missing = [agent for agent, record in stored.items() if record is None]
        made = self.files.read(frame, ref, missing) if missing else {}
        return {agent: record if record is not None else made[agent] for agent, record in stored.items()}

    def _stored(self, frame: int, ref: FrameRef, agent: str) -> StoredRecord | None:
        if frame not in self._place:
            return None
        path, file_bytes = self._place[frame]
        name, yaml_path = record_name(ref, agent), self.files.index.yaml_path(ref, agent)
        data = read_record(path, file_bytes, name)
        return None if data is None else unpack(data, yaml_path, self.files.with_vehicles)


def _current_shards(
    root: Path, index: SplitIndex, depth_source: DepthSource, config: DataConfig
) -> dict[int, tuple[Path, int]]:
    """Path and size of the shard that each frame of the index is in, of complete and unchanged shards.

    Raises: see :class:`CachedViews`.
    """
    settings = read_settings(root, index.split)
    if settings is None:
        if not root.exists():
            raise ConfigError(
                f"data.cache_root={root}: there is no such folder; coopmap cache cache_root={root} makes it, "
                "data.cache_root=null makes views from files"
            )
        log.warning("%s: no cache of split %s; views are made from files", root, index.split)
        return {}
    require_same(root, settings, settings_of(config, depth_source))

    def look(shard: Shard) -> tuple[Path, int] | None:
        description = describe(shard, root)
        if description is None:
            return None
        if scenario := other_frames(index, shard, description):
            raise _of_other_frames(shard.path(root), scenario)
        if change := what_changed(index, depth_source, shard, description):
            raise ConfigError(f"{shard.path(root)}: the cache is older than its data: {change} differs. {AGAIN}")
        check_size(shard.path(root), description.file_bytes)
        return shard.path(root), description.file_bytes

    shards = plan(index)
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        found = list(pool.map(look, shards))
    if absent := found.count(None):
        lacking = [shard for shard, place in zip(shards, found, strict=True) if not place]
        _refuse_other_plan(root, index, shards, lacking)
        if lacks_images(config):
            lack = f"data.cache_root={root} lacks {absent} of {len(shards)} shards of {index.split}"
            raise without_images(config, f"{lack}, which the command that began it will add")
        log.warning("%s: %d of %d shards of %s are not written yet; their views are made from files",
                    root, absent, len(shards), index.split)  # fmt: skip
    return {frame: place for shard, place in zip(shards, found, strict=True) if place for frame in shard.frames}


def _refuse_other_plan(root: Path, index: SplitIndex, planned: Sequence[Shard], absent: Sequence[Shard]) -> None:
    """Refuse a cache that holds views of absent shards in shards of other names.

    Raises:
        ConfigError: names a scenario that one of them has and the other lacks.
    """
    holding: dict[str, tuple[Path, Description]] = {}
    for path in leftovers(root, index.split, planned):
        if described := description_beside(path):
            holding |= dict.fromkeys(described.names, (path, described))
    for shard in absent:
        for path, described in (holding[name] for name in names_of(index, shard) if name in holding):
            if scenario := other_frames(index, shard, described):
                raise _of_other_frames(path, scenario)


def _of_other_frames(path: Path, scenario: str) -> ConfigError:
    return ConfigError(
        f"{path}: the cache has other frames or agents of {scenario}: expected data.exclude and data.include_rsu as "
        "when it was filled; else the command that filled it, with those of here, writes what is missing"
    )
