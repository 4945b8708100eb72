"""Where the views of a dataset come from: made from files, or ready in a cache."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from coopmap.config.data import DataConfig
from coopmap.data.opv2v import DepthSource, FrameRef, SplitIndex, VehicleBoxes, read_agent, read_images
from coopmap.data.views import Record, View, build_views
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

log = logging.getLogger(__name__)


class ViewMaker(Protocol):
    """Turns what was read of one agent into its views."""

    def __call__(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None, rng: np.random.Generator | None
    ) -> list[View]:
        """See :class:`~coopmap.data.views.PanoramaViews`."""


class ReadyViews(Protocol):
    """Reads records of agents, and has the maker of views that understands them."""

    views: ViewMaker

    def read(self, frame: int, ref: FrameRef, agents: Sequence[str]) -> dict[str, Record]:
        """What views of some agents of a frame are made from, in the order asked for.

        Raises:
            FrameError: if a file is missing or damaged.
        """


class ViewsFromFiles:
    """Decodes images, metadata and depth.

    Args:
        index: the split.
        depth_source: where depth comes from.
        config: layout, and whether decoded files are kept.
        with_vehicles: also read the boxes of vehicles.
    """

    def __init__(self, index: SplitIndex, depth_source: DepthSource, config: DataConfig, with_vehicles: bool) -> None:
        self.index, self.depth_source, self.config = index, depth_source, config
        self.with_vehicles = with_vehicles
        self.views: ViewMaker = build_views(config, depth_source.is_dense)
        self._kept: dict[tuple[int, str], Record] = {}

    def read(self, frame: int, ref: FrameRef, agents: Sequence[str]) -> dict[str, Record]:
        """Decoded files, from memory where they are kept; see :class:`ReadyViews`."""
        missing = [agent for agent in agents if (frame, agent) not in self._kept]
        metadata = {
            agent: read_agent(self.index.yaml_path(ref, agent), with_vehicles=self.with_vehicles) for agent in missing
        }
        depths = self.depth_source.read(ref, metadata) if missing else {}
        read = {}
        for agent in missing:
            paths = [self.index.image_path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]
            images = read_images(paths, metadata[agent].rig.image_size)
            read[frame, agent] = Record(metadata[agent], images, depths[agent])
        if self.config.keep_in_memory:
            self._kept |= read
        return {agent: self._kept.get((frame, agent)) or read[frame, agent] for agent in agents}


def ready_views(
    index: SplitIndex, depth_source: DepthSource, config: DataConfig, with_vehicles: bool, augment: bool
) -> ReadyViews:
    """From the cache if there is one, and from files what it cannot give.

    Raises:
        ConfigError: if the cache was made from other data or with other settings.
    """
    files = ViewsFromFiles(index, depth_source, config, with_vehicles)
    if config.cache_root is None:
        return files
    if augment and config.augmentation.tilt_deg > 0:
        log.warning(
            "%s: data.augmentation.tilt_deg warps every view anew, from files: the cache is unused", index.split
        )
        return files
    from coopmap.data.cache.reading import CachedViews

    return CachedViews(files)
