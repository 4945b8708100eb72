"""True matches between the patches of agents, made from ground-truth points of one tick; LiDAR alone will do.

A patch is represented by its known point nearest to its center. It matches the part of a patch of the other agent that
shows the surface there, and is unmatched where the other agent sees another surface in that direction, nearer or
farther, or cannot look. Nothing is taught where depth is unknown, nor where the surfaces above and below leave open
whether the other agent sees the point; except of foreign agents: between them and the others no patch has a match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from coopmap.geometry.cells import PARTS, by_agent, cell_angle
from coopmap.geometry.covisibility import MAX_COLUMNS, range_images, sight_of
from coopmap.geometry.nearest import nearest
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import invert, relative_pose, transform_points
from coopmap.types import Target
from coopmap.types.agents import columns_around, in_agent_frame, patch_side, true_agent_poses, views_per_agent

TOLERANCE_M = 0.4
TOLERANCE_CELLS = 0.2
"""A point is matched with the nearest sample of the other agent's points up to this distance: meters, plus cells at its
range. Samples, one in each part of a cell, are half a cell apart; on surfaces at grazing angles none may be near."""


@dataclass(frozen=True)
class TrueMatches:
    """True matches of all pairs of agents ``i < j``, in both directions (from ``i``'s cells, from ``j``'s cells).

    Attributes:
        part: which part of which cell of the other agent, ``cell * parts + part``; meaningful where ``matched``.
        matched: cells whose point the other agent sees.
        unmatched: cells whose point the other agent certainly does not see, and cells that no camera covers.
        covisibility: share of the known points that the other agent sees, mean of both directions; NaN where one of
            the two knows no points, 0 of a foreign agent.
        pose: ``T_i_j``.
        foreign: one of the two is a foreign agent; then ``pose`` means nothing.
    """

    part: tuple[Int[Tensor, "b p c"], Int[Tensor, "b p c"]]
    matched: tuple[Bool[Tensor, "b p c"], Bool[Tensor, "b p c"]]
    unmatched: tuple[Bool[Tensor, "b p c"], Bool[Tensor, "b p c"]]
    covisibility: Float[Tensor, "b p"]
    pose: Float[Tensor, "b p 4 4"]
    foreign: Bool[Tensor, "b p"]


@dataclass(frozen=True)
class _Cells:
    """Cells of all agents: their points (agent frames and view 0's frame), finer samples of the same, range images."""

    points: Float[Tensor, "b a c 3"]
    known: Bool[Tensor, "b a c"]
    empty: Bool[Tensor, "b a c"]
    common: Float[Tensor, "b a c 3"]
    samples: Float[Tensor, "b a cs 3"]
    sampled: Bool[Tensor, "b a cs"]
    near: Float[Tensor, "b a rows columns"]
    far: Float[Tensor, "b a rows columns"]
    is_dense: Bool[Tensor, "b a"]


@torch.no_grad()
def true_matches(target: Target, num_cells: int, dense_share: float) -> TrueMatches:
    """Matches between the cells of all pairs of agents.

    Args:
        target: ground truth.
        num_cells: of an agent.
        dense_share: views with more known depth than this (share of what cameras cover) show sky where it is unknown.
    """
    views, patch = views_per_agent(target), patch_side(target, num_cells)
    pose = true_agent_poses(target)
    cells = _cells(target, pose, views, patch, dense_share)
    agents = pose.shape[1]
    i, j = pair_ends(agents, pose.device)
    angle = cell_angle(target.rays, patch)
    asking, asked = torch.cat([i, j]), torch.cat([j, i])
    foreign = _foreign_pairs(target, views, asking, asked)
    found = _look_up(cells, pose, asking, asked, angle, foreign)
    share = found.seen.sum(dim=-1) / cells.known[:, asking].sum(dim=-1)  # 0 / 0 = NaN
    share = share.masked_fill(foreign, 0.0)
    part, matched, unmatched = (value.chunk(2, dim=1) for value in (found.part, found.matched, found.unmatched))
    return TrueMatches(
        part=(part[0], part[1]),
        matched=(matched[0], matched[1]),
        unmatched=(unmatched[0], unmatched[1]),
        covisibility=share.unflatten(1, (2, -1)).mean(dim=1),
        pose=relative_pose(pose[:, i], pose[:, j]).to(target.depth),
        foreign=foreign[:, : len(i)],
    )


def _foreign_pairs(target: Target, views: int, asking: Tensor, asked: Tensor) -> Bool[Tensor, "b p"]:
    """Pairs with a foreign agent."""
    if target.foreign is None:
        return asking.new_zeros(len(target.depth), len(asking), dtype=torch.bool)
    foreign = target.foreign[:, ::views]
    return foreign[:, asking] | foreign[:, asked]


def cell_grid(target: Target, num_cells: int) -> tuple[int, int]:
    """Rows and columns of the cells of one view."""
    patch = patch_side(target, num_cells)
    return target.depth.shape[-2] // patch, target.depth.shape[-1] // patch


def _cells(target: Target, pose: Float[Tensor, "b a 4 4"], views: int, patch: int, dense_share: float) -> _Cells:
    points, known = known_points(target, patch, patch)
    samples, sampled = known_points(target, patch, patch // PARTS)
    covered = _tiles(target.non_ambiguous[..., None], patch, patch)[..., 0].any(dim=-1)
    covered_share = target.non_ambiguous.sum(dim=(2, 3)).clamp(min=1)
    is_dense = (target.valid & target.non_ambiguous).sum(dim=(2, 3)) / covered_share > dense_share
    empty = ~covered | (~known.unflatten(2, (views, -1)).flatten(1, 2) & is_dense[..., None])
    everything = in_agent_frame(target.points_view.flatten(2, 3), target)
    seen = by_agent(everything, views), by_agent(target.valid.flatten(2, 3), views)
    near, far = range_images(*seen, min(columns_around(target), MAX_COLUMNS))
    empty = by_agent(empty, views)
    to_common = pose.to(points)
    return _Cells(
        points=points,
        known=known,
        empty=empty,
        common=transform_points(to_common, points),
        samples=transform_points(to_common, samples),
        sampled=sampled,
        near=near,
        far=far,
        is_dense=is_dense.unflatten(1, (-1, views)).all(dim=-1),
    )


def _tiles(maps: Shaped[Tensor, "b v h w c"], patch: int, side: int) -> Shaped[Tensor, "b v n k c"]:
    """Pixels of squares of a side, those of one patch after another, patches row by row."""
    b, v, h, w, c = maps.shape
    inner = patch // side
    tiles = maps.view(b, v, h // patch, inner, side, w // patch, inner, side, c)
    return tiles.permute(0, 1, 2, 5, 3, 6, 4, 7, 8).reshape(b, v, -1, side * side, c)


def known_points(target: Target, patch: int, side: int) -> tuple[Float[Tensor, "b a n 3"], Bool[Tensor, "b a n"]]:
    """The known point nearest to the center of each square in the agents' cells, and whether there is one.

    Args:
        target: ground truth.
        patch: side of a cell in pixels.
        side: of the squares: the same, or that of a cell's parts.

    Returns:
        Points in the agents' frames; squares of one cell after another.
    """
    ahead = torch.arange(side, device=target.depth.device) - side // 2
    order = (ahead[:, None].square() + ahead.square()).flatten().argsort(stable=True)
    valid = _tiles(target.valid[..., None], patch, side)[..., 0][..., order]
    chosen = order[valid.to(torch.uint8).argmax(dim=-1)]
    height, width = target.depth.shape[-2:]
    number = torch.arange(height * width, device=order.device).view(1, 1, height, width, 1)
    pixel = _tiles(number, patch, side)[..., 0].expand(*chosen.shape, -1).gather(3, chosen[..., None])[..., 0]
    depth = target.depth.flatten(2).gather(2, pixel)[..., None]
    rays = target.rays.flatten(2, 3).gather(2, pixel[..., None].expand(-1, -1, -1, 3))
    points, views = in_agent_frame(rays * depth, target), views_per_agent(target)
    return by_agent(points, views), by_agent(valid.any(dim=-1), views)


class _Found(NamedTuple):
    part: Int[Tensor, "b p c"]
    matched: Bool[Tensor, "b p c"]
    seen: Bool[Tensor, "b p c"]
    unmatched: Bool[Tensor, "b p c"]


def _look_up(
    cells: _Cells,
    pose: Float[Tensor, "b a 4 4"],
    asking: Tensor,
    asked: Tensor,
    angle: Float[Tensor, ""],
    foreign: Bool[Tensor, "b p"],
) -> _Found:
    """What the cells of one agent of each pair match among the parts of the cells of the other."""
    points = cells.common[:, asking]
    from_there = transform_points(invert(pose[:, asked]).to(points), points)
    tolerance = TOLERANCE_M + TOLERANCE_CELLS * angle * from_there.norm(dim=-1)
    distance, part = nearest(points, cells.samples[:, asked], cells.sampled[:, asked])
    known = cells.known[:, asking]
    sight = sight_of(from_there, cells.near[:, asked], cells.far[:, asked])
    apart = foreign[..., None]
    seen = known & sight.seen & ~apart
    told = (sight.looked_at | cells.is_dense[:, asked, None]) & ~sight.possible
    return _Found(
        part=part,
        matched=seen & (distance < tolerance),
        seen=seen,
        unmatched=(known & ~seen & told) | cells.empty[:, asking] | apart,
    )
