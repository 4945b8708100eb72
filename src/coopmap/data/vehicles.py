"""Which pixels show a moving vehicle, and which the car that carries the cameras (numpy)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from coopmap.data.opv2v import AgentMetadata, VehicleBoxes
from coopmap.geometry.boxes import inside_boxes
from coopmap.geometry.se3_numpy import relative_pose

MOVING_MPS = 0.5 / 3.6
"""Slower vehicles count as standing: half a kilometer per hour, a centimeter in a tick."""

MARGIN_M = 0.1
FLOOR_M = 0.05
"""Boxes are widened by the one, for mirrors and rounding; their bottoms lifted by the other, off the road."""

DEFAULT_BODY_HALF_EXTENTS = (1.06, 0.78, 2.49)
DEFAULT_BODY_CENTER_FORWARD_M = 0.5
"""Box (right, down, forward) of an agent that no other agent lists: an ordinary saloon of CARLA, with the LiDAR half a
meter behind its middle, as on the real rig."""


def vehicles_around(agents: Mapping[str, AgentMetadata]) -> VehicleBoxes | None:
    """Boxes of the vehicles that any of the agents lists, each once; ``None`` if an agent's list was not read.

    An agent's own file leaves out the agent itself, but the others list it.
    """
    lists = [metadata.vehicles for metadata in agents.values()]
    known = [boxes for boxes in lists if boxes is not None]
    if len(known) < len(lists) or not known:
        return None
    ids, first = np.unique(np.concatenate([boxes.ids for boxes in known]), return_index=True)
    return VehicleBoxes(
        ids=ids,
        pose=np.concatenate([boxes.pose for boxes in known])[first],
        half_extents=np.concatenate([boxes.half_extents for boxes in known])[first],
        speed=np.concatenate([boxes.speed for boxes in known])[first],
    )


def vehicle_masks(
    points: Float[np.ndarray, "h w 3"],
    valid: Bool[np.ndarray, "h w"],
    agent: str,
    metadata: AgentMetadata,
    vehicles: VehicleBoxes,
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Pixels whose point lies in the box of a moving vehicle, and in that of the agent's own car.

    Args:
        points: what the pixels show, agent frame.
        valid: where that is known; other pixels show neither.
        agent: id of the agent.
        metadata: of the agent.
        vehicles: see :func:`vehicles_around`.
    """
    agent_from_box = relative_pose(metadata.pose, vehicles.pose)
    is_own = vehicles.ids == int(agent)
    in_motion = (np.abs(vehicles.speed) > MOVING_MPS) & ~is_own
    own = (agent_from_box[is_own], vehicles.half_extents[is_own]) if is_own.any() else _default_body(metadata)
    boxes = (agent_from_box[in_motion], vehicles.half_extents[in_motion])
    moving, own_body = (
        inside_boxes(points.reshape(-1, 3), poses, half_extents, MARGIN_M, FLOOR_M).reshape(valid.shape) & valid
        for poses, half_extents in (boxes, own)
    )
    return moving, own_body


def _default_body(metadata: AgentMetadata) -> tuple[Float[np.ndarray, "m 4 4"], Float[np.ndarray, "m 3"]]:
    """Box of an ordinary agent; none for a road-side unit, which has no body."""
    half_extents = np.array([DEFAULT_BODY_HALF_EXTENTS])
    pose = np.eye(4)[None].copy()
    pose[0, 1:3, 3] = metadata.rig.ground_height_m - half_extents[0, 1], DEFAULT_BODY_CENTER_FORWARD_M
    number = 0 if metadata.is_rsu else 1
    return pose[:number], half_extents[:number]
