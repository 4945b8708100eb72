"""Where the views of a dataset come from: made from files, or ready in a cache."""

from __future__ import annotations

import logging

from coopmap.config.data import DataConfig
from coopmap.data.from_files import ReadyViews, ViewsFromFiles
from coopmap.data.opv2v import DepthSource, SplitIndex
from coopmap.data.splits import lacks_images, without_images

log = logging.getLogger(__name__)

TILTED_WITHOUT_WARPING = ("cameras", "mosaic")
"""Layouts whose images are the same in a tilted frame."""


def ready_views(
    index: SplitIndex, depth_source: DepthSource, config: DataConfig, with_vehicles: bool, augment: bool
) -> ReadyViews:
    """From the cache if there is one, and from files what it cannot give.

    Raises:
        ConfigError: if the cache was made from other data or with other settings, or images are needed where only
            metadata was written.
    """
    files = ViewsFromFiles(index, depth_source, config, with_vehicles)
    if config.cache_root is None:
        return files
    if augment and config.augmentation.tilt_deg > 0 and config.layout not in TILTED_WITHOUT_WARPING:
        if lacks_images(config):
            raise without_images(config, "data.augmentation.tilt_deg warps every view anew, from images")
        log.warning(
            "%s: data.augmentation.tilt_deg warps every view anew, from files: the cache is unused", index.split
        )
        return files
    from coopmap.data.cache.reading import CachedViews

    return CachedViews(files)
