"""The nearest of many points (torch)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Distances at once: of a CPU few enough for its cache."""


def nearest(
    points: Float[Tensor, "*b n 3"], others: Float[Tensor, "*b m 3"], known: Bool[Tensor, "*b m"]
) -> tuple[Float[Tensor, "*b n"], Int[Tensor, "*b n"]]:
    """Distance to the nearest of the others, and which it is, without gradient; infinity where none is known.

    By differences, not by ``|a|^2 + |b|^2 - 2 ab``, which loses what is near far from the origin; block by block and
    coordinate by coordinate a third of the time of ``torch.cdist`` on a CPU.
    """
    batch, (count, size) = points.shape[:-2], (points.shape[-2], others.shape[-2])
    coordinates = torch.where(known[..., None], others, torch.inf).flatten(0, -3).mT.contiguous()[:, :, None]
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
                distance[pairs, part], which[pairs, part] = squared.min(dim=-1)
    return distance.sqrt_().view(*batch, count), which.view(*batch, count)


def _squared(a: Float[Tensor, "p 3 n 1"], b: Float[Tensor, "p 3 1 m"]) -> Float[Tensor, "p n m"]:
    squared = (a[:, 0] - b[:, 0]).square_()
    for axis in (1, 2):
        step = a[:, axis] - b[:, axis]
        squared.addcmul_(step, step)
    return squared
