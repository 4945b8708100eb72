"""From scores of all pairs of cells to the most confident matches, each with a point of either agent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopmap.geometry.cells import neighbors, take
from coopmap.models.addons.matching.cells import CellPoints

WIDEST_COSINE = 0.9
"""Places beside one another in the grid, but farther apart on the sphere (edges of an image), are no neighbors."""
LARGEST_STEP = 0.15
"""Ranges that differ by a larger factor (its logarithm) belong to different surfaces."""
PLACE_SHARPNESS = 2.0
"""Of the distribution over places that a match's place is the mean of. As trained, it leans toward places with less
parallax, by a tenth of a cell in the mean, which draws agents together; its peak leans less."""


class Correspondences(NamedTuple):
    """Matches of each pair of agents ``i < j``, the most confident ``m``.

    Attributes:
        cells: of ``i`` and of ``j``.
        points_i, points_j: in either agent's frame.
        weight: confidence.
    """

    cells: Int[Tensor, "b p m 2"]
    points_i: Float[Tensor, "b p m 3"]
    points_j: Float[Tensor, "b p m 3"]
    weight: Float[Tensor, "b p m"]


def assignment(
    scores: Float[Tensor, "b p c c"], unmatched: Float[Tensor, "b a c"]
) -> tuple[Float[Tensor, "b p c c1"], Float[Tensor, "b p c c1"]]:
    """Log probabilities over the other agent's cells and, last, over no match: of ``i``'s cells, and of ``j``'s.

    The dual softmax of LoFTR (Sun et al., 2021) with a bin for what has no match (SuperGlue, Sarlin et al., 2020).
    """
    first, second = torch.triu_indices(unmatched.shape[1], unmatched.shape[1], offset=1, device=scores.device)
    rows = torch.cat([scores, unmatched[:, first, :, None]], dim=-1).log_softmax(dim=-1)
    columns = torch.cat([scores.mT, unmatched[:, second, :, None]], dim=-1).log_softmax(dim=-1)
    return rows, columns


def correspond(
    rows: Float[Tensor, "b p c c1"],
    columns: Float[Tensor, "b p c c1"],
    query: Float[Tensor, "b a c f"],
    keys: Float[Tensor, "b a c s f"],
    points: CellPoints,
    seen: Float[Tensor, "b a c"],
    grid: tuple[int, int],
    max_matches: int,
    log_prior: Float[Tensor, "b p c c"] | None = None,
) -> Correspondences:
    """The most confident matches of cells of ``i``, then those of cells of ``j``, half of ``max_matches`` each.

    Args:
        rows: of :func:`assignment`.
        columns: likewise.
        query: descriptors of the centers of cells.
        keys: descriptors of their parts.
        points: of centers and parts.
        seen: probability that a camera covers a cell.
        grid: rows and columns of the cells of one view.
        max_matches: number of matches kept.
        log_prior: logarithm of how likely other sources find each match.
    """
    first, second = torch.triu_indices(seen.shape[1], seen.shape[1], offset=1, device=seen.device)
    log_joint = rows[..., :-1] + columns[..., :-1].mT
    joint = (log_joint if log_prior is None else log_joint + log_prior).exp()
    joint = joint * (seen[:, first, :, None] * seen[:, second, None])
    count = min(max_matches // 2, joint.shape[-1])
    forth = _ask(joint, query[:, first], keys[:, second], points.of(first), points.of(second), grid, count)
    back = _ask(joint.mT, query[:, second], keys[:, first], points.of(second), points.of(first), grid, count)
    return Correspondences(
        cells=torch.cat([forth.cells, back.cells.flip(-1)], dim=2),
        points_i=torch.cat([forth.points_i, back.points_j], dim=2),
        points_j=torch.cat([forth.points_j, back.points_i], dim=2),
        weight=torch.cat([forth.weight, back.weight], dim=2),
    )


def _ask(
    joint: Float[Tensor, "b p c c"],
    query: Float[Tensor, "b p c f"],
    keys: Float[Tensor, "b p c s f"],
    asking: CellPoints,
    asked: CellPoints,
    grid: tuple[int, int],
    count: int,
) -> Correspondences:
    """Where one agent's cells lie in or around their best cells of the other agent; the ``count`` most confident."""
    confidence, best = joint.max(dim=-1)
    weight, cell = confidence.topk(count, dim=-1)
    other = best.gather(2, cell)
    around = neighbors(other, grid)
    logits = (take(keys, around).flatten(3, 4) @ take(query, cell)[..., None])[..., 0]
    refined = between(logits, take(asked.parts, around).flatten(3, 4))
    return Correspondences(torch.stack([cell, other], dim=-1), take(asking.center, cell), refined, weight)


def between(logits: Float[Tensor, "*b k"], points: Float[Tensor, "*b k 3"]) -> Float[Tensor, "*b 3"]:
    """Point between the most probable place and those beside it on the same surface: mean direction and log range."""
    log_range = points.norm(dim=-1, keepdim=True).clamp(min=1e-3).log()
    direction = points / log_range.exp()
    best = logits.argmax(dim=-1)[..., None, None]
    cosine = (direction * direction.gather(-2, best.expand(*best.shape[:-1], 3))).sum(dim=-1)
    step = (log_range - log_range.gather(-2, best))[..., 0].abs()
    elsewhere = (cosine < WIDEST_COSINE) | (step > LARGEST_STEP)
    weight = (PLACE_SHARPNESS * logits).masked_fill(elsewhere, -torch.inf).softmax(dim=-1)[..., None]
    mean = (weight * direction).sum(dim=-2)
    mean = mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return mean * (weight * log_range).sum(dim=-2).exp()
