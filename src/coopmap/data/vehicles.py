"""Which pixels show a moving vehicle, and which the car that carries the cameras (numpy)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from coopmap.data.opv2v import AgentMetadata, VehicleBoxes
from coopmap.geometry.boxes import inside_boxes, points_in_boxes
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
    is_own, in_motion = _own_and_moving(agent, vehicles)
    own = (agent_from_box[is_own], vehicles.half_extents[is_own]) if is_own.any() else _default_body(metadata)
    boxes = (agent_from_box[in_motion], vehicles.half_extents[in_motion])
    moving, own_body = (
        inside_boxes(points.reshape(-1, 3), poses, half_extents, MARGIN_M, FLOOR_M).reshape(valid.shape) & valid
        for poses, half_extents in (boxes, own)
    )
    return moving, own_body


@dataclass(frozen=True, eq=False)
class VehiclePixels:
    """What :func:`vehicle_masks` can be made from again, for any of the lists of vehicles that a frame has.

    Attributes:
        at: flat pixels whose point lies in the box of a moving vehicle or of the agent's own car, box by box.
        count: of the pixels of each box.
        ids: of the vehicles.
        body_at: flat pixels of the ordinary body that the agent has if nobody lists it.
    """

    at: Int32[np.ndarray, " n"]
    count: Int32[np.ndarray, " m"]
    ids: Int64[np.ndarray, " m"]
    body_at: Int32[np.ndarray, " b"]

    def masks(
        self, agent: str, listed: Int[np.ndarray, " v"], shape: tuple[int, ...]
    ) -> tuple[Bool[np.ndarray, "*h"], Bool[np.ndarray, "*h"]]:
        """:func:`vehicle_masks` of an agent, where only some vehicles are listed.

        Args:
            agent: id of the agent.
            listed: ids of the vehicles.
            shape: of the masks.
        """
        moving, own_body = np.zeros(shape, bool), np.zeros(shape, bool)
        is_own, is_listed = self.ids == int(agent), np.isin(self.ids, listed)
        moving.reshape(-1)[self.at[np.repeat(is_listed & ~is_own, self.count)]] = True
        own_at = self.at[np.repeat(is_own, self.count)] if int(agent) in listed else self.body_at
        own_body.reshape(-1)[own_at] = True
        return moving, own_body


def vehicle_pixels(
    points: Float[np.ndarray, "*h 3"],
    valid: Bool[np.ndarray, "*h"],
    agent: str,
    metadata: AgentMetadata,
    vehicles: VehicleBoxes,
) -> VehiclePixels:
    """The pixels of each vehicle; arguments as of :func:`vehicle_masks`, of any number of images."""
    known = np.flatnonzero(valid)
    shown = points.reshape(-1, 3)[known]
    chosen = np.logical_or(*_own_and_moving(agent, vehicles))
    boxes = relative_pose(metadata.pose, vehicles.pose)[chosen], vehicles.half_extents[chosen]
    found, body = (
        [known[inside] for inside in points_in_boxes(shown, poses, half_extents, MARGIN_M, FLOOR_M)]
        for poses, half_extents in (boxes, _default_body(metadata))
    )
    none = np.empty(0, known.dtype)
    return VehiclePixels(
        at=np.concatenate([none, *found]).astype(np.int32),
        count=np.array([len(pixels) for pixels in found], np.int32),
        ids=vehicles.ids[chosen].astype(np.int64),
        body_at=np.concatenate([none, *body]).astype(np.int32),
    )


def _own_and_moving(agent: str, vehicles: VehicleBoxes) -> tuple[Bool[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Which vehicle is the agent itself, and which others move."""
    is_own = vehicles.ids == int(agent)
    return is_own, (np.abs(vehicles.speed) > MOVING_MPS) & ~is_own


def _default_body(metadata: AgentMetadata) -> tuple[Float[np.ndarray, "m 4 4"], Float[np.ndarray, "m 3"]]:
    """Box of an ordinary agent; none for a road-side unit, which has no body."""
    half_extents = np.array([DEFAULT_BODY_HALF_EXTENTS])
    pose = np.eye(4)[None].copy()
    pose[0, 1:3, 3] = metadata.rig.ground_height_m - half_extents[0, 1], DEFAULT_BODY_CENTER_FORWARD_M
    number = 0 if metadata.is_rsu else 1
    return pose[:number], half_extents[:number]
