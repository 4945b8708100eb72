"""What a split of a dataset consists of; synthetic data is rendered first."""

from __future__ import annotations

import logging
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.cache_settings import cached_depth_source
from coopmap.data.kept_index import kept_index
from coopmap.data.opv2v import DepthSource, SplitIndex, read_exclusions, select_depth_source

log = logging.getLogger(__name__)


def split_source(config: DataConfig, split: str) -> tuple[SplitIndex, DepthSource]:
    """Which frames a split has, and where their depth comes from.

    Raises:
        DatasetLayoutError: if a folder or all depth is missing, or the split is empty.
        ConfigError: if no root is given, or images are needed where only metadata was written.
    """
    if not config.root:
        raise ConfigError("data.root is not set: give the folder that holds train, validate and test")
    depth, depth_root = config.depth, config.depth_root
    cached = cached_depth_source(config.cache_root, split)
    if lacks_images(config):
        if config.cache_root is None:
            raise without_images(config, "data.cache_root is not set")
        if cached is None:
            raise without_images(config, f"data.cache_root={config.cache_root} has nothing of the split {split}")
        depth_root = config.root if cached == "npy" else None  # where there is none: the cache has it
    excluded = read_exclusions(config.exclude)
    index = kept_index(config.root, split, config.include_rsu, excluded, config.cache_dir, config.splits)
    return index, select_depth_source(
        index,
        depth_root,
        depth.source,
        depth.kind,
        depth.max_m,
        merge_agents=depth.merge_agents,
        cached=cached,
    )


def lacks_images(config: DataConfig) -> bool:
    """Whether ``data.root`` has the metadata of streets alone, which were rendered straight into a cache."""
    if not (Path(config.root).expanduser() / "town.yaml").is_file():
        return False
    from coopmap.synthetic import holds_metadata_alone

    return holds_metadata_alone(config.root)


def without_images(config: DataConfig, reason: str) -> ConfigError:
    """The error where images, sweeps or depth are needed, for some reason, that were never written."""
    return ConfigError(
        f"{reason}; but data.root={config.root} holds the metadata of streets alone, which were rendered straight into "
        "a cache: there are no images, sweeps and depth (coopmap synth without cache_root writes them, to another root)"
    )


def render_missing_town(config: DataConfig) -> None:
    """Render what ``data.town`` describes, as far as ``data.root`` and ``data.depth_root`` do not hold it yet."""
    if config.town is not None and not town_is_there(config):
        from coopmap.synthetic import render_town

        what = "streets" if config.town.per_scenario else "the synthetic town"
        log.info("%s is not there or not complete: rendering %s, once, in some minutes", config.root, what)
        render_town(config.town)


def town_is_there(config: DataConfig) -> bool:
    """Whether ``data.root`` and ``data.depth_root`` exist, and hold all scenarios if each has a street of its own."""
    if config.town is not None and config.town.per_scenario:
        from coopmap.synthetic import missing_scenarios

        return not missing_scenarios(config.town)
    return Path(config.root).exists() and (config.depth_root is None or Path(config.depth_root).exists())
