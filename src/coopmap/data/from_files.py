"""Views made from the files of a dataset, and what any source of views looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from coopmap.config.data import DataConfig
from coopmap.data.layouts import build_views
from coopmap.data.metadata_table import MetadataTable
from coopmap.data.opv2v import AgentMetadata, DepthSource, FrameRef, SplitIndex, VehicleBoxes, read_agent, read_images
from coopmap.data.views import Record, View
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT


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
        self.metadata = None  # the table knows no vehicles
        if config.cache_dir is not None and not with_vehicles:
            self.metadata = MetadataTable(index, config.cache_dir)
        self._kept: dict[tuple[int, str], Record] = {}

    def read(self, frame: int, ref: FrameRef, agents: Sequence[str]) -> dict[str, Record]:
        """Decoded files, from memory where they are kept; see :class:`ReadyViews`."""
        missing = [agent for agent in agents if (frame, agent) not in self._kept]
        metadata = {agent: self._metadata(frame, ref, agent) for agent in missing}
        depths = self.depth_source.read(ref, metadata) if missing else {}
        read = {}
        for agent in missing:
            paths = [self.index.image_path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]
            images = read_images(paths, metadata[agent].rig.image_size)
            read[frame, agent] = Record(metadata[agent], images, depths[agent])
        if self.config.keep_in_memory:
            self._kept |= read
        return {agent: self._kept.get((frame, agent)) or read[frame, agent] for agent in agents}

    def _metadata(self, frame: int, ref: FrameRef, agent: str) -> AgentMetadata:
        path = self.index.yaml_path(ref, agent)
        if self.metadata is None:
            return read_agent(path, with_vehicles=self.with_vehicles)
        return self.metadata.read(int(self.index.agent_start[frame]) + ref.agents.index(agent), path)
