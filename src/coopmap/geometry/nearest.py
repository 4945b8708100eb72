"""The nearest of many points (torch)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

BLOCK = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Distances at once: of a CPU few enough for its cache."""
LANES = 128
"""Columns of the table that a row of distances is looked through as."""


def nearest(
    points: Float[Tensor, "*b n 3"], others: Float[Tensor, "*b m 3"], known: Bool[Tensor, "*b m"]
) -> tuple[Float[Tensor, "*b n"], Int[Tensor, "*b n"]]:
    """Distance to the nearest of the others, and which it is, without gradient; infinity where none is known.

    By differences, not by ``|a|^2 + |b|^2 - 2 ab``, which loses what is near far from the origin; block by block and
    coordinate by coordinate a third of the time of ``torch.cdist`` on a CPU.
    """
    batch, (count, size) = points.shape[:-2], (points.shape[-2], others.shape[-2])
    coordinates = torch.where(known[..., None], others, torch.inf).flatten(0, -3).mT
    coordinates = functional.pad(coordinates, (0, -size % LANES), value=torch.inf)[:, :, None]
    asking = points.flatten(0, -3).mT.contiguous()[..., None]
    rows = max(1, BLOCK.get(points.device.type, 1 << 24) // size)
    together = max(1, rows // count)
    distance = points.new_empty(len(asking), count)
    which = torch.empty(len(asking), count, dtype=torch.long, device=points.device)
    with torch.no_grad():
        for first in range(0, len(asking), together):
            pairs = slice(first, first + together)
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                squared = _squared(asking[pairs, :, part], coordinates[pairs])
                distance[pairs, part], which[pairs, part] = _least(squared)
    return distance.sqrt_().view(*batch, count), which.view(*batch, count)


def _least(rows: Float[Tensor, "p n m"]) -> tuple[Float[Tensor, "p n"], Int[Tensor, "p n"]]:
    """The minimum of each row and its place, as of ``rows.min(-1)``; that takes three times as long on a CPU."""
    table = rows.unflatten(-1, (-1, LANES))
    least, lane = table.amin(dim=-2).min(dim=-1)
    column = table.gather(-1, lane[..., None, None].expand(*lane.shape, table.shape[-2], 1))[..., 0]
    return least, column.argmin(dim=-1) * LANES + lane


def _squared(a: Float[Tensor, "p 3 n 1"], b: Float[Tensor, "p 3 1 m"]) -> Float[Tensor, "p n m"]:
    squared = (a[:, 0] - b[:, 0]).square_()
    for axis in (1, 2):
        step = a[:, axis] - b[:, axis]
        squared.addcmul_(step, step)
    return squared
