"""What files say about a frame beside what models see: GPS, rigs, vehicles around, LiDAR sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from coopmap.data.opv2v import FrameError, FrameRef, SplitIndex, VehicleBoxes, read_agent
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.vehicles import vehicles_around
from coopmap.geometry.rig import Rig
from coopmap.types import SampleMeta


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Of the agents of a frame; OpenCV axes, meters.

    Attributes:
        agents: their names, the reference first.
        pose: ``T_world_agent``.
        gps: the same as the cars' own GPS and compass have it.
        rigs: cameras.
        vehicles: boxes of the vehicles that any of the agents lists.
        sweeps: of the LiDARs, agent frame; ``None`` of those not asked for or unreadable.
    """

    agents: tuple[str, ...]
    pose: Float[np.ndarray, "n 4 4"]
    gps: Float[np.ndarray, "n 4 4"]
    rigs: tuple[Rig, ...]
    vehicles: VehicleBoxes | None
    sweeps: tuple[Float32[np.ndarray, "p 3"] | None, ...]


def read_surroundings(index: SplitIndex, meta: SampleMeta, with_sweeps: bool = False) -> Surroundings:
    """Read the files of a sample's agents.

    Args:
        index: of the sample's split.
        meta: of the sample.
        with_sweeps: read LiDAR sweeps too; those that are missing or damaged are left out.

    Raises:
        FrameError: metadata are missing or damaged.
    """
    agents = tuple(dict.fromkeys(meta.agents))
    ref = FrameRef(index.split, meta.scenario, meta.frame, agents)
    metadata = {agent: read_agent(index.yaml_path(ref, agent)) for agent in agents}
    return Surroundings(
        agents,
        np.stack([each.pose for each in metadata.values()]),
        np.stack([each.pose_prior for each in metadata.values()]),
        tuple(each.rig for each in metadata.values()),
        vehicles_around(metadata),
        _sweeps(index, ref, agents) if with_sweeps else (None,) * len(agents),
    )


def _sweeps(index: SplitIndex, ref: FrameRef, agents: Sequence[str]) -> tuple[Float32[np.ndarray, "p 3"] | None, ...]:
    found: list[Float32[np.ndarray, "p 3"] | None] = []
    for agent in agents:
        try:
            found.append(read_sweep(index.lidar_path(ref, agent)))
        except FrameError:
            found.append(None)
    return tuple(found)
