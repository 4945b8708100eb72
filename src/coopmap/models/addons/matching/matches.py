"""From scores of all pairs of cells to the most confident matches, each with a point of either agent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopmap.geometry.cells import compare, neighbors, take
from coopmap.geometry.pairs import pair_ends
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
    first, second = pair_ends(unmatched.shape[1], scores.device)
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
    first, second = pair_ends(seen.shape[1], seen.device)
    ends, cells = (seen[:, first], seen[:, second]), seen.shape[2]
    with torch.no_grad():
        joint = rows[..., :-1] + columns[..., :-1].mT
        joint = (joint if log_prior is None else joint.add_(log_prior)).exp_()
        joint.mul_(ends[0][..., :, None]).mul_(ends[1][..., None, :])
    count = min(max_matches // 2, cells)
    forth = _ask(joint, query[:, first], keys[:, second], points.of(first), points.of(second), grid, count)
    back = _ask(joint.mT, query[:, second], keys[:, first], points.of(second), points.of(first), grid, count)
    matched = torch.cat([forth.cells, back.cells.flip(-1)], dim=2)
    i, j = matched.unbind(-1)
    # once more, of these alone: gradients of all pairs of cells would be zeros
    log_weight = _at(rows, i, j) + _at(columns, j, i)
    log_weight = log_weight if log_prior is None else log_weight + _at(log_prior, i, j)
    return Correspondences(
        cells=matched,
        points_i=torch.cat([forth.asking, back.asked], dim=2),
        points_j=torch.cat([forth.asked, back.asking], dim=2),
        weight=log_weight.exp() * (ends[0].gather(2, i) * ends[1].gather(2, j)),
    )


def _at(
    values: Float[Tensor, "b p r c"], row: Int[Tensor, "b p m"], column: Int[Tensor, "b p m"]
) -> Float[Tensor, "b p m"]:
    return values.flatten(2).gather(2, row * values.shape[3] + column)


class _Answers(NamedTuple):
    """Cells of the asking and of the asked agent, and their points."""

    cells: Int[Tensor, "b p m 2"]
    asking: Float[Tensor, "b p m 3"]
    asked: Float[Tensor, "b p m 3"]


def _ask(
    joint: Float[Tensor, "b p c c"],
    query: Float[Tensor, "b p c f"],
    keys: Float[Tensor, "b p c s f"],
    asking: CellPoints,
    asked: CellPoints,
    grid: tuple[int, int],
    count: int,
) -> _Answers:
    """Where one agent's cells lie in or around their best cells of the other agent; the ``count`` most confident."""
    confidence, best = joint.max(dim=-1)
    cell = confidence.topk(count, dim=-1).indices
    other = best.gather(2, cell)
    around = neighbors(other, grid)
    logits = compare(take(query, cell), keys, around)
    refined = between(logits, take(asked.parts, around).flatten(3, 4))
    return _Answers(torch.stack([cell, other], dim=-1), take(asking.center, cell), refined)


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
