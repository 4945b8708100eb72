"""Where alignment starts: poses that two or three matches suggest, scored by how many other matches agree.

Deterministic: which matches go together follows from a low-discrepancy sequence through the inverse of the weights'
cumulative sum, so that matches are drawn in proportion to their weight without random numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry.alignment_cost import Matches
from coopmap.geometry.se3 import with_bottom_row

TOP_MATCHES = 256
"""Matches of the largest weight, which alone take part in the search."""

TOLERANCE_M = 0.5
"""Error of a match that is forgiven beside its own uncertainty."""


def top_matches(matches: Matches) -> Matches:
    """The :data:`TOP_MATCHES` of the largest weights of each pair."""
    index = matches.weight.topk(min(TOP_MATCHES, matches.weight.shape[-1]), dim=-1).indices

    def take(value: Tensor) -> Tensor:
        rows = index.view(len(index), *(1,) * (value.dim() - 2), index.shape[1])
        return value.gather(-1, rows.expand(*value.shape[:-1], -1))

    return matches.map(take)


def best_candidates(
    matches: Matches, variance: Float[Tensor, "b n"], level: bool, hypotheses: int, candidates: int
) -> Float[Tensor, "b c 4 4"]:
    """Poses ``T_a_b`` that most of the weight agrees with, each the best of its share of the hypotheses.

    Args:
        matches: those that suggest and judge.
        variance: expected squared distance between a match's two points after alignment, square meters.
        level: the agents' vertical axes are parallel (rotations about y only).
        hypotheses: poses tried.
        candidates: poses returned.
    """
    points_a, points_b = matches.points.mT.unbind(dim=1)
    chosen = _choose(matches.weight, hypotheses - hypotheses % candidates, 2 if level else 3)
    rows = torch.arange(len(chosen), device=chosen.device)[:, None, None]
    some_a, some_b = points_a[rows, chosen], points_b[rows, chosen]
    rotation, valid = (_rotation_about_y if level else _rotation)(some_a, some_b)
    precision = 1 / (2 * variance + TOLERANCE_M**2)  # of the truncated residuals
    share = precision[rows, chosen]
    apart = some_a - some_b @ rotation.mT
    translation = (share[..., None] * apart).sum(dim=-2) / share.sum(dim=-1, keepdim=True)
    score = _score(rotation, translation, points_a, points_b, matches.weight, precision)
    best = torch.where(valid, score, -1.0).unflatten(1, (candidates, -1)).argmax(dim=-1)
    best = best + torch.arange(candidates, device=best.device) * (valid.shape[1] // candidates)
    return with_bottom_row(torch.cat([rotation, translation[..., None]], dim=-1)[rows[:, 0], best])


def _choose(weight: Float[Tensor, "b n"], hypotheses: int, size: int) -> Int[Tensor, "b k size"]:
    """Indices of the matches of each hypothesis."""
    # Roberts' additive recurrence: the root of x^(d+1) = x + 1 takes the place of the golden ratio in d dimensions.
    root = {2: 1.32471795724474602596, 3: 1.22074408460575947536}[size]
    steps = torch.arange(1, hypotheses + 1, dtype=torch.float64, device=weight.device)[:, None]
    powers = root ** -torch.arange(1, size + 1, dtype=torch.float64, device=weight.device)
    sequence = (0.5 + steps * powers).remainder(1.0)
    # A product, since the cumulative sum on GPUs has no deterministic implementation.
    number = weight.shape[-1]
    cumulative = weight @ torch.ones(number, number, dtype=weight.dtype, device=weight.device).triu()
    wanted = (sequence.flatten() * cumulative[:, -1:]).contiguous()
    index = torch.searchsorted(cumulative.contiguous(), wanted, right=True)
    return index.clamp(max=number - 1).unflatten(-1, (hypotheses, size))


def _rotation_about_y(
    points_a: Float[Tensor, "b k 2 3"], points_b: Float[Tensor, "b k 2 3"]
) -> tuple[Float[Tensor, "b k 3 3"], Bool[Tensor, "b k"]]:
    """The turn from one horizontal direction between two points to the other; where both are not vertical."""
    a, b = (points[:, :, 1] - points[:, :, 0] for points in (points_a, points_b))
    cosine = a[..., 0] * b[..., 0] + a[..., 2] * b[..., 2]
    sine = a[..., 0] * b[..., 2] - a[..., 2] * b[..., 0]
    length = torch.hypot(cosine, sine)
    valid = length > 1e-6
    cosine = torch.where(valid, cosine / length, 1.0)
    sine = torch.where(valid, sine / length, 0.0)
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    rotation = torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], dim=-1)
    return rotation.unflatten(-1, (3, 3)), valid


def _rotation(
    points_a: Float[Tensor, "b k 3 3"], points_b: Float[Tensor, "b k 3 3"]
) -> tuple[Float[Tensor, "b k 3 3"], Bool[Tensor, "b k"]]:
    """The turn from the axes that three points span to the other three's; where neither are collinear."""
    (axes_a, valid_a), (axes_b, valid_b) = _axes(points_a), _axes(points_b)
    valid = valid_a & valid_b
    eye = torch.eye(3, dtype=axes_a.dtype, device=axes_a.device)
    return torch.where(valid[..., None, None], axes_a.mT @ axes_b, eye), valid


def _axes(points: Float[Tensor, "b k 3 3"]) -> tuple[Float[Tensor, "b k 3 3"], Bool[Tensor, "b k"]]:
    """Orthonormal rows: along the first side, across it in the plane, normal to the plane."""
    side, other = points[:, :, 1] - points[:, :, 0], points[:, :, 2] - points[:, :, 0]
    normal = torch.linalg.cross(side, other)
    axes = torch.stack([side, torch.linalg.cross(normal, side), normal], dim=-2)
    length = torch.linalg.vector_norm(axes, dim=-1, keepdim=True)
    return axes / length.clamp(min=1e-12), (length[..., 0] > 1e-6).all(dim=-1)


def _score(
    rotation: Float[Tensor, "b k 3 3"],
    translation: Float[Tensor, "b k 3"],
    points_a: Float[Tensor, "b n 3"],
    points_b: Float[Tensor, "b n 3"],
    weight: Float[Tensor, "b n"],
    precision: Float[Tensor, "b n"],
) -> Float[Tensor, "b k"]:
    """Sum over matches of ``weight * max(0, 1 - precision |p - R q - t|^2)``.

    The squared distance is a scalar product of what depends on the pose and what depends on the match, so that all
    come from one matrix product, in float32 (good to centimeters at 100 m).
    """
    pull = translation[..., None, :] @ rotation  # t' R
    of_pose = [
        2 * rotation.flatten(-2),
        2 * translation,
        -2 * pull[..., 0, :],
        -translation.square().sum(dim=-1, keepdim=True),
        torch.ones_like(translation[..., :1]),
    ]
    outer = (points_a[..., :, None] * points_b[..., None, :]).flatten(-2)
    squares = points_a.square().sum(dim=-1, keepdim=True) + points_b.square().sum(dim=-1, keepdim=True)
    one = torch.ones_like(squares)
    of_match = torch.cat([outer, points_a, points_b, one, -squares], dim=-1) * precision[..., None]
    of_match = torch.cat([of_match[..., :-1], of_match[..., -1:] + 1], dim=-1)
    gain = torch.cat(of_pose, dim=-1).float() @ of_match.float().mT
    return (gain.clamp_(min=0) @ weight.float()[..., None])[..., 0].to(weight.dtype)
