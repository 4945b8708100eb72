"""From the options of ``coopmap cache`` to a filled cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coopmap.config.cache import SPLITS, CacheConfig
from coopmap.config.data import DataConfig
from coopmap.data.cache.shards import Shard, leftovers
from coopmap.data.cache.streets import render_into_cache, streets_of
from coopmap.data.cache.writing import Split, Written, fill
from coopmap.data.depth_probe import check_depth
from coopmap.data.opv2v import find_split_folder
from coopmap.data.opv2v.index import split_folder
from coopmap.data.splits import render_missing_town, split_source

MOST_SHOWN = 5


def fill_cache(asked: CacheConfig, config: DataConfig) -> str:
    """Write all that is missing.

    Returns:
        What the cache holds.

    Raises:
        ConfigError: if the cache was made with other settings, or a setting is wrong.
        DatasetLayoutError: if a folder or all depth is missing, or a split is empty.
    """
    assert asked.cache_root is not None
    root = Path(asked.cache_root).expanduser()
    if not asked.keep_files:
        return fill_with_streets(root, config, asked.splits or SPLITS, asked.workers)
    render_missing_town(config)
    names = asked.splits or [
        name for name in SPLITS if find_split_folder(Path(config.root).expanduser(), name, config.splits)
    ]
    if not names:
        split_folder(Path(config.root).expanduser(), SPLITS[0], config.splits)  # raises, and says where they may be
    splits = {}
    for name in names:
        index, source = split_source(config, name)
        check_depth(index, source)
        splits[name] = Split(index, source)
    return _summary(root, fill(root, config, splits, asked.workers))


def fill_with_streets(
    root: Path, config: DataConfig, splits: Sequence[str] = SPLITS, num_workers: int | None = None
) -> str:
    """Render the streets of ``data.town`` that are missing; see :func:`render_into_cache`.

    Returns:
        What the cache holds.
    """
    written = render_into_cache(root, config, splits, num_workers)
    return _summary(root, written, f"data.root={streets_of(config).root} ")


def _summary(root: Path, written: list[Written], beside: str = "") -> str:
    views = sum(result.views for result in written)
    size = sum(result.shard.path(root).stat().st_size for result in written)
    holds = f"{views} views in {len(written)} shards, {size / 1e9:.2f} GB"
    lines = [f"{root}: {holds}; train with {beside}data.cache_root={root}"]
    unreadable = [reason for result in written for reason in result.unreadable]
    if unreadable:
        lines.append(f"{len(unreadable)} views could not be read; training skips them as it does without a cache:")
        lines += [f"  {reason}" for reason in unreadable[:MOST_SHOWN]]
    return "\n".join([*lines, *_about_leftovers(root, [result.shard for result in written])])


def _about_leftovers(root: Path, shards: Sequence[Shard]) -> list[str]:
    """Lines about shards of the same splits that stay from other frames."""
    splits = sorted({shard.split for shard in shards})
    paths = [path for split in splits for path in leftovers(root, split, shards)]
    if not paths:
        return []
    size = sum(path.stat().st_size for path in paths)
    lines = [
        f"{len(paths)} shards of {size / 1e9:.2f} GB were made for other frames and are not read with these; delete "
        "them, each with the .json beside it, if nothing else needs them:"
    ]
    lines += [f"  {path}" for path in paths[:MOST_SHOWN]]
    return lines if len(paths) <= MOST_SHOWN else [*lines, f"  and {len(paths) - MOST_SHOWN} more"]
