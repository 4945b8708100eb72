"""What a split of a dataset consists of; the synthetic town is rendered first."""

from __future__ import annotations

import logging
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.kept_index import kept_index
from coopmap.data.opv2v import DepthSource, SplitIndex, read_exclusions, select_depth_source

log = logging.getLogger(__name__)


def split_source(config: DataConfig, split: str) -> tuple[SplitIndex, DepthSource]:
    """Which frames a split has, and where their depth comes from.

    Raises:
        DatasetLayoutError: if a folder or all depth is missing, or the split is empty.
        ConfigError: if no root is given.
    """
    if not config.root:
        raise ConfigError("data.root is not set: give the folder that holds train, validate and test")
    index = kept_index(config.root, split, config.include_rsu, read_exclusions(config.exclude), config.cache_dir)
    depth = config.depth
    return index, select_depth_source(
        index, config.depth_root, depth.source, depth.kind, depth.max_m, merge_agents=depth.merge_agents
    )


def render_missing_town(config: DataConfig) -> None:
    """Render ``data.town`` if ``data.root`` is to hold it and does not exist yet, or its depth does not."""
    if config.town is not None and not town_is_there(config):
        from coopmap.synthetic import render_town

        log.info("%s does not exist yet: rendering the synthetic town, once, in a minute or two", config.root)
        render_town(config.town)


def town_is_there(config: DataConfig) -> bool:
    """Whether ``data.root`` and ``data.depth_root`` exist."""
    return Path(config.root).exists() and (config.depth_root is None or Path(config.depth_root).exists())
