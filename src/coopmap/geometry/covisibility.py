"""Whether a point is seen from where other points are known: range images around an agent (torch)."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

MAX_COLUMNS = 504
"""Range images have cells of 0.7 degrees, or as many columns as what they are made from where that has fewer."""

NEIGHBORHOODS = ((1, 1), (3, 3), (5, 5))
"""Rows and columns of cells that are asked for a surface, one after the other until one knows."""

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
    empty = depth.new_full((*depth.shape[:-1], rows * columns), -math.inf)
    farthest = empty.scatter_reduce(-1, cell, torch.where(known, depth, -math.inf), "amax")
    nearest = empty.scatter_reduce(-1, cell, torch.where(known, -depth, -math.inf), "amax")
    far, near = (_widest(image.unflatten(-1, (rows, columns))) for image in (farthest, nearest))
    return -near, far


def is_seen(
    points: Float[Tensor, "*b p 3"], near: Float[Tensor, "*b r c"], far: Float[Tensor, "*b r c"]
) -> Bool[Tensor, "*b p"]:
    """Whether range images have a surface at a point, 5 % and 0.2 m allowed."""
    cell = _cells(points, *near.shape[-2:])
    distance = torch.linalg.vector_norm(points, dim=-1)
    slack = RELATIVE_TOLERANCE * distance + ABSOLUTE_TOLERANCE_M
    nearest, farthest = near.flatten(-2).gather(-1, cell), far.flatten(-2).gather(-1, cell)
    return (distance > nearest - slack) & (distance < farthest + slack)


def is_looked_at(points: Float[Tensor, "*b p 3"], near: Float[Tensor, "*b r c"]) -> Bool[Tensor, "*b p"]:
    """Whether range images know a surface in the direction of a point, before, at or behind it."""
    return near.flatten(-2).gather(-1, _cells(points, *near.shape[-2:])).isfinite()


def _widest(image: Float[Tensor, "*b r c"]) -> Float[Tensor, "*b r c"]:
    """Maximum over the smallest neighborhood that holds anything; the sphere closes sideways."""
    result = torch.full_like(image, -math.inf)
    for rows, columns in NEIGHBORHOODS:
        side = columns // 2
        around = torch.cat([image[..., image.shape[-1] - side :], image, image[..., :side]], dim=-1)
        around = functional.pad(around, (0, 0, rows // 2, rows // 2), value=-math.inf)
        result = torch.where(result.isinf(), _max_of_runs(_max_of_runs(around, columns, -1), rows, -2), result)
    return result


def _max_of_runs(image: Float[Tensor, "*b r c"], length: int, dim: int) -> Float[Tensor, "*b m n"]:
    """Maximum over every run of neighbors along a dimension; a fraction of the time of ``max_pool2d`` on a CPU."""
    count = image.shape[dim] - length + 1
    return functools.reduce(torch.maximum, (image.narrow(dim, first, count) for first in range(length)))


def _cells(directions: Float[Tensor, "*b 3"], rows: int, columns: int) -> Int[Tensor, "*b"]:
    """Flat index of the cell of azimuth and elevation that a direction (of any length) points into."""
    x, y, z = directions.unbind(-1)
    azimuth = torch.atan2(x, z) / (2 * math.pi) + 0.5
    polar = torch.atan2(torch.hypot(x, z), -y) / math.pi
    column = (azimuth * columns).long().clamp(0, columns - 1)
    row = (polar * rows).long().clamp(0, rows - 1)
    return row * columns + column
