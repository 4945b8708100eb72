"""Cells: the square patches of a view, and their parts; numbered row by row, views one after another."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

PARTS = 2
"""A cell has this many parts along either side."""


def at_centers(maps: Shaped[Tensor, "b v h w *c"], patch_size: int) -> Shaped[Tensor, "b v n *c"]:
    """The pixel at the center of each cell."""
    middle = patch_size // 2
    return maps[:, :, middle::patch_size, middle::patch_size].flatten(2, 3)


def at_part_centers(maps: Shaped[Tensor, "b v h w *c"], patch_size: int) -> Shaped[Tensor, "b v n s *c"]:
    """The pixel at the center of each part of each cell."""
    side = patch_size // PARTS
    parts = maps[:, :, side // 2 :: side, side // 2 :: side]
    cells = parts.unflatten(3, (-1, PARTS)).unflatten(2, (-1, PARTS))  # b v rows s columns s *c
    return cells.movedim(3, 4).flatten(4, 5).flatten(2, 3)


def cell_angle(rays: Float[Tensor, "b v h w 3"], patch_size: int) -> Float[Tensor, ""]:
    """Mean angle between the centers of neighboring cells, radians: one below the other or side by side, the larger.

    With a single row or column of cells, the only one that there is.
    """
    middle = patch_size // 2
    centers = rays[:, :, middle::patch_size, middle::patch_size]
    below = (centers[:, :, 1:] * centers[:, :, :-1]).sum(dim=-1)
    beside = (centers[:, :, :, 1:] * centers[:, :, :, :-1]).sum(dim=-1)
    return torch.fmin(below.mean(), beside.mean()).clamp(-1, 1).acos()  # the mean of none is NaN


def by_agent(cells: Shaped[Tensor, "b v n *c"], views: int) -> Shaped[Tensor, "b a vn *c"]:
    """Cells of the views of each agent."""
    return cells.unflatten(1, (-1, views)).flatten(2, 3)


def neighbors(cell: Int[Tensor, "*b"], grid: tuple[int, int]) -> Int[Tensor, "*b 9"]:
    """A cell (the fifth) and those around it in its view; columns form a ring, at the first and last row it repeats."""
    height, width = grid
    view, place = cell.div(height * width, rounding_mode="floor"), cell % (height * width)
    row, column = place.div(width, rounding_mode="floor"), place % width
    step = torch.arange(-1, 2, device=cell.device)
    rows = (row[..., None, None] + step[:, None]).clamp(0, height - 1)
    columns = (column[..., None, None] + step) % width
    return (view[..., None, None] * (height * width) + rows * width + columns).flatten(-2)


def repeated(around: Int[Tensor, "*b 9"]) -> Bool[Tensor, "*b 9"]:
    """Which of :func:`neighbors` are a cell that is among them already, nearer to the center or before it."""
    place = torch.arange(9, device=around.device)
    steps = (place.div(3, rounding_mode="floor") - 1).abs() + (place % 3 - 1).abs()
    order = 9 * steps + place
    same = around[..., :, None] == around[..., None, :]
    return (same & (order[None, :] < order[:, None])).any(dim=-1)


def take(values: Shaped[Tensor, "b p c *f"], cells: Int[Tensor, "b p *m"]) -> Shaped[Tensor, "b p *m f"]:
    """Values of some cells."""
    batch, pairs, count = values.shape[:3]
    first = torch.arange(0, batch * pairs * count, count, device=cells.device).view(
        batch, pairs, *(1,) * (cells.dim() - 2)
    )
    # whole rows are copied, in a third of the time of `gather`
    return values.flatten(0, 2).index_select(0, (first + cells).flatten()).unflatten(0, cells.shape)


def compare(
    query: Float[Tensor, "b p m f"], keys: Float[Tensor, "b p c s f"], around: Int[Tensor, "b p m 9"]
) -> Float[Tensor, "b p m ns"]:
    """Products of descriptors with those of all parts of :func:`neighbors`; minus infinity of those repeated."""
    # as a product of matrices it would be one of thousands of small ones
    products = (take(keys, around) * query[..., None, None, :]).sum(dim=-1)
    return products.masked_fill(repeated(around)[..., None], -torch.inf).flatten(3)
