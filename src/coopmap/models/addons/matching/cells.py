"""Where the network sees the cells of an agent, and from where: points in the agent's frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from coopmap.config.checks import ConfigError
from coopmap.geometry.cells import PARTS, at_centers, at_part_centers, by_agent
from coopmap.geometry.rig import SLOTS_BY_AZIMUTH
from coopmap.geometry.se3 import rotate, transform_points
from coopmap.types import Observation, Prediction
from coopmap.types.agents import camera_centers_by_azimuth, cameras_per_agent

FEATURES_PER_CELL = 8
"""Of the dense head's fused map, along either side (:class:`~coopmap.models.heads.DPTFeature`)."""
SHORTEST_M = 0.1
"""Least distance of a point from the agent's origin."""


class CellPoints(NamedTuple):
    """The network's points in the agents' frames.

    Attributes:
        center: of each cell.
        parts: of each part of each cell.
    """

    center: Float[Tensor, "b a c 3"]
    parts: Float[Tensor, "b a c s 3"]

    def of(self, agents: Int[Tensor, " p"]) -> CellPoints:
        """Those of some agents."""
        return CellPoints(self.center[:, agents], self.parts[:, agents])


class LinesOfSight(NamedTuple):
    """Where an agent's lines of sight start, if that is not its own origin.

    Attributes:
        origin: of the line of each cell, in the agent's frame.
        from_center: the predicted range is the distance from the agent's origin nevertheless, as in a mosaic; otherwise
            it is that along the line.
    """

    origin: Float[Tensor, "b a c 3"]
    from_center: bool


def cell_points(prediction: Prediction, observation: Observation, patch_size: int, rays: str) -> CellPoints:
    """The network's points at the centers of cells and of their parts.

    Args:
        prediction: ranges, and rays for ``predicted``.
        observation: calibrated rays for ``calibrated``; see :func:`points_on_calibrated_rays`.
        patch_size: side of a cell in pixels.
        rays: ``calibrated`` or ``predicted``.
    """
    views = cameras_per_agent(observation)
    points = prediction.points_view if rays == "predicted" else points_on_calibrated_rays(prediction, observation)

    def at(pick: Callable[[Tensor, int], Tensor]) -> Shaped[Tensor, "b a c *s 3"]:
        picked = pick(points, patch_size)
        if observation.rig_pose is not None:
            flat = transform_points(observation.rig_pose.to(picked), picked.flatten(2, -2))
            picked = flat.view_as(picked)
        return by_agent(picked, views)

    return CellPoints(at(at_centers), at(at_part_centers))


def features_of_cells(features: Float[Tensor, "bv c _ _"]) -> Float[Tensor, "bv n s1 c"]:
    """Mean features of the middle of each cell and, after it, of each of its parts; a middle is as large as a part.

    Args:
        features: :data:`FEATURES_PER_CELL` along either side of a cell.
    """
    side = FEATURES_PER_CELL // PARTS
    rest = (FEATURES_PER_CELL - side) // 2
    inside = features[..., rest:-rest, rest:-rest]
    middle = F.avg_pool2d(inside, side, stride=FEATURES_PER_CELL).flatten(2)
    parts = F.pixel_unshuffle(F.avg_pool2d(features, side), PARTS).unflatten(1, (-1, PARTS**2)).flatten(3)
    return torch.cat([middle[:, :, None], parts], dim=2).permute(0, 3, 2, 1)


def points_on_calibrated_rays(prediction: Prediction, observation: Observation) -> Float[Tensor, "b v h w 3"]:
    """Where pixels are by predicted ranges and calibrated directions, in the views' frames.

    In a mosaic, the point of the camera's line of sight that is as far from the agent's center as predicted.
    """
    direction, depth = observation.rays.to(prediction.depth), prediction.depth[..., None]
    start = _ray_starts(observation)
    return direction * depth if start is None else _at_distance(start.to(depth), direction, depth)


def lines_of_sight(observation: Observation, patch_size: int, rays: str) -> LinesOfSight | None:
    """Where the lines of sight of cells start; ``None`` where they start at the agent's origin.

    Those of panoramas and fused maps do; those of a mosaic with ``predicted`` rays as well, since the network
    predicts directions from there.

    Args:
        observation: with the calibration of its cameras.
        patch_size: side of a cell in pixels.
        rays: ``calibrated`` or ``predicted``.
    """
    if observation.rig_pose is not None:
        start, from_center = observation.rig_pose[:, :, None, None, :3, 3], False
    elif rays == "calibrated" and (centers := _ray_starts(observation)) is not None:
        start, from_center = centers, True
    else:
        return None
    of_cells = at_centers(start.expand_as(observation.rays), patch_size)
    return LinesOfSight(by_agent(of_cells, cameras_per_agent(observation)), from_center)


def down_directions(observation: Observation) -> Float[Tensor, "b a 3"]:
    """Directions of gravity in the agents' frames, each from the agent's first view.

    Raises:
        ConfigError: if the observation has none.
    """
    if observation.gravity is None:
        raise ConfigError(
            "model.matching.gravity=true: the inputs do not say where down is (Observation.gravity); give a frame with "
            "metadata (frame=ROOT/SPLIT/SCENARIO/FRAME), or set model.matching.gravity=false"
        )
    views = cameras_per_agent(observation)
    down = observation.gravity[:, ::views]
    if observation.rig_pose is None:
        return down
    return rotate(observation.rig_pose[:, ::views], down[:, :, None])[:, :, 0]


def _ray_starts(observation: Observation) -> Float[Tensor, "b v 1 w 3"] | None:
    """Where the rays of a mosaic start: at its cameras; ``None`` where they start at the view's origin."""
    if observation.camera_pose is None or observation.images.ndim != 5:
        return None
    center = camera_centers_by_azimuth(observation.camera_pose)
    return center.repeat_interleave(observation.rays.shape[3] // len(SLOTS_BY_AZIMUTH), dim=2)[:, :, None]


def _at_distance(
    start: Float[Tensor, "*#b 3"], direction: Float[Tensor, "*b 3"], distance: Float[Tensor, "*b 1"]
) -> Float[Tensor, "*b 3"]:
    """The point ahead on a line whose distance from the origin is given (the nearest to it where there is none)."""
    along = (start * direction).sum(dim=-1, keepdim=True)
    beyond = along.square() - start.square().sum(dim=-1, keepdim=True) + distance.square()
    return start + direction * (beyond.clamp(min=SHORTEST_M**2).sqrt() - along)
