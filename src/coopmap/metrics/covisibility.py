"""How much of what one agent sees another agent sees too."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry import relative_pose, transform_points
from coopmap.geometry.covisibility import MAX_COLUMNS, is_seen, range_images
from coopmap.geometry.pairs import pair_ends
from coopmap.types import Target
from coopmap.types.agents import agent_poses, at_the_tick, columns_around, in_agent_frame, views_per_agent

ROWS, COLUMNS = 64, 256
"""Maximum number of rows and columns of each view's pixels that are looked up."""


class RangeImages(NamedTuple):
    """The nearest and farthest known range of each agent in the cells around each cell of a sphere."""

    near: Float[Tensor, "b n r c"]
    far: Float[Tensor, "b n r c"]

    @classmethod
    def of(cls, target: Target) -> RangeImages:
        """What the agents see according to the ground truth."""
        points, valid = _by_agent(target, target.points_view, target.valid)
        return cls(*range_images(points, valid, min(columns_around(target), MAX_COLUMNS)))


def covisibility(target: Target, images: RangeImages | None = None) -> Float[Tensor, "b p"]:
    """Share of an agent's valid points that another agent sees too, the mean of both directions, per pair ``i < j``.

    A point is seen by an agent if the agent's own ground truth has a surface there: its known depths are gathered in a
    range image with cells of 0.7 degrees, and the point's distance lies between the nearest and the farthest in the
    cell of its direction, with a tolerance of 5 % and 0.2 m; where that holds nothing, in the 3 x 3, then the 5 x 5
    cells around. The span handles roads at grazing angles, where a cell covers meters; in exchange, points hidden less
    than a cell behind an outline may count as seen. NaN where one of the two has no valid pixel.

    Against ray casting from the cameras, with dense depth at 1008 x 252: off by 0.04 on average, in the synthetic town
    (0.13 at most) and on streets (once by 0.2, where rows of pixels on a road far off are farther apart than the
    tolerance). Lower with LiDAR depth, which does not cover every surface that the images show.

    Args:
        target: ground truth.
        images: its range images, if they are known already.
    """
    pose = agent_poses(target.pose, target)
    first, second = pair_ends(pose.shape[1], pose.device)
    near, far = RangeImages.of(target) if images is None else images
    points, valid = _some_points(target)
    shares = []
    for viewer, other in ((second, first), (first, second)):
        viewer_from_other = relative_pose(pose[:, viewer], pose[:, other]).float()
        seen = is_seen(transform_points(viewer_from_other, points[:, other]), near[:, viewer], far[:, viewer])
        counted = valid[:, other]
        shares.append((seen & counted).sum(dim=-1).double() / counted.sum(dim=-1))
    return (shares[0] + shares[1]) / 2


def _some_points(target: Target) -> tuple[Float[Tensor, "b n p 3"], Bool[Tensor, "b n p"]]:
    """A regular subset of each agent's points, and which of them are valid."""
    height, width = target.depth.shape[-2:]
    some = slice(None, None, math.ceil(height / ROWS)), slice(None, None, math.ceil(width / COLUMNS))
    points = target.rays[:, :, *some] * target.depth[:, :, *some][..., None]
    return _by_agent(target, points, target.valid[:, :, *some])


def _by_agent(
    target: Target, points: Float[Tensor, "b v h w 3"], valid: Bool[Tensor, "b v h w"]
) -> tuple[Float[Tensor, "b n p 3"], Bool[Tensor, "b n p"]]:
    """Points of the views gathered by agent, in the agents' frames."""
    agents = valid.shape[1] // views_per_agent(target)
    points = at_the_tick(in_agent_frame(points.flatten(2, 3), target), target)
    valid = at_the_tick(valid, target)
    return points.reshape(len(points), agents, -1, 3), valid.reshape(len(valid), agents, -1)
