"""Whether a point is seen from where other points are known: range images around an agent (torch)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

MAX_COLUMNS = 504
"""Range images have cells of 0.7 degrees, or as many columns as there are pixels around the agent if that is fewer."""

WIDENINGS = 2
"""A cell that knows no surface asks those around it, then those around these: up to this far."""

RELATIVE_TOLERANCE = 0.05
ABSOLUTE_TOLERANCE_M = 0.2


def range_images(
    points: Float[Tensor, "*b n 3"], known: Bool[Tensor, "*b n"], columns: int
) -> tuple[Float[Tensor, "*b r c"], Float[Tensor, "*b r c"]]:
    """The nearest and farthest known range in the cells around each cell of a sphere.

    Infinity and -infinity where there is none.

    Args:
        points: around the origin.
        known: points that count.
        columns: cells of a full turn; there are half as many rows.
    """
    rows = columns // 2
    cell, depth = _cells(points, rows, columns), torch.linalg.vector_norm(points, dim=-1)
    signed = torch.where(known, torch.stack([-depth, depth]), -math.inf)
    empty = depth.new_full((*signed.shape[:-1], rows * columns), -math.inf)
    images = empty.scatter_reduce(-1, cell.expand_as(signed), signed, "amax")
    near, far = _widest(images.unflatten(-1, (rows, columns)))
    return -near, far


class Sight(NamedTuple):
    """What range images say of points.

    Attributes:
        seen: there is a surface at the point, 5 % and 0.2 m allowed.
        possible: likewise if the cells above and below its own count too: from one row of pixels to the next, far
            ground spans more meters than is allowed.
        looked_at: there is a surface in its direction, before, at or behind it.
    """

    seen: Bool[Tensor, "*b p"]
    possible: Bool[Tensor, "*b p"]
    looked_at: Bool[Tensor, "*b p"]


def is_seen(
    points: Float[Tensor, "*b p 3"], near: Float[Tensor, "*b r c"], far: Float[Tensor, "*b r c"]
) -> Bool[Tensor, "*b p"]:
    """Whether range images have a surface at a point, as :class:`Sight` has it."""
    cell, distance = _cells(points, *near.shape[-2:]), torch.linalg.vector_norm(points, dim=-1)
    return _is_between(distance, _at(cell, near), _at(cell, far))


def sight_of(points: Float[Tensor, "*b p 3"], near: Float[Tensor, "*b r c"], far: Float[Tensor, "*b r c"]) -> Sight:
    """All that range images say of points."""
    cell, distance = _cells(points, *near.shape[-2:]), torch.linalg.vector_norm(points, dim=-1)
    nearest = _at(cell, near)
    rows = (functional.pad(image, (0, 0, 1, 1), value=-math.inf) for image in (-near, far))
    nearer, farther = (_max_of_three(image, -2) for image in rows)
    return Sight(
        seen=_is_between(distance, nearest, _at(cell, far)),
        possible=_is_between(distance, _at(cell, -nearer), _at(cell, farther)),
        looked_at=nearest < math.inf,
    )


def _at(cell: Int[Tensor, "*b p"], image: Float[Tensor, "*b r c"]) -> Float[Tensor, "*b p"]:
    return image.flatten(-2).gather(-1, cell)


def _is_between(
    distance: Float[Tensor, "*b p"], nearest: Float[Tensor, "*b p"], farthest: Float[Tensor, "*b p"]
) -> Bool[Tensor, "*b p"]:
    slack = RELATIVE_TOLERANCE * distance + ABSOLUTE_TOLERANCE_M
    return (distance > nearest - slack) & (distance < farthest + slack)


def _widest(image: Float[Tensor, "*b r c"]) -> Float[Tensor, "*b r c"]:
    """Maximum over the smallest neighborhood that holds anything; the sphere closes sideways."""
    result = around = image
    for _ in range(WIDENINGS):
        around = _max_of_three(torch.cat([around[..., -1:], around, around[..., :1]], dim=-1), -1)
        around = _max_of_three(functional.pad(around, (0, 0, 1, 1), value=-math.inf), -2)
        result = torch.where(result.isinf(), around, result)
    return result


def _max_of_three(image: Float[Tensor, "*b r c"], dim: int) -> Float[Tensor, "*b m n"]:
    """Maximum over every three neighbors along a dimension; a fraction of the time of ``max_pool2d`` on a CPU."""
    count = image.shape[dim] - 2
    first, second, third = (image.narrow(dim, start, count) for start in range(3))
    return torch.maximum(torch.maximum(first, second), third)


def _cells(directions: Float[Tensor, "*b 3"], rows: int, columns: int) -> Int[Tensor, "*b"]:
    """Flat index of the cell of azimuth and elevation that a direction (of any length) points into."""
    x, y, z = directions.unbind(-1)
    azimuth = torch.atan2(x, z) / (2 * math.pi) + 0.5
    polar = torch.atan2(torch.hypot(x, z), -y) / math.pi
    column = (azimuth * columns).long().clamp(0, columns - 1)
    row = (polar * rows).long().clamp(0, rows - 1)
    return row * columns + column
