"""Matches between agents: how many are right, where their points lie, and what the model expects of the poses."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry import invert, relative_pose, rotation_angle, transform_points
from coopmap.geometry.alignment import squared_mahalanobis
from coopmap.geometry.cells import at_centers, by_agent, cell_angle
from coopmap.geometry.covisibility import is_seen
from coopmap.geometry.pairs import pair_ends
from coopmap.metrics.covisibility import RangeImages
from coopmap.metrics.reduce import or_infinite
from coopmap.types import PairMatches, Prediction, Target
from coopmap.types.agents import agent_poses, in_agent_frame, patch_side, views_per_agent

MATCH_COLUMNS = (
    "confidence",
    "covisibility_pred",
    "covisibility_error",
    "degenerate",
    "matches_kept",
    "match_accuracy",
    "aligned_trans_m",
    "aligned_rot_deg",
    "aligned_mahalanobis",
)
"""Of pairs, where the model matches."""
CELL_NAMES = ("cell_range_m", "cell_range_abs_rel")
"""Of samples, where the model matches."""
WITHIN_CELLS = 0.75
"""A match is right if the matched cell's center is this close to the true direction; a cell's corner is at 0.71."""


def match_figures(
    matches: PairMatches, target: Target, images: RangeImages, covisibility: Float[Tensor, "b p"]
) -> dict[str, Float[Tensor, "b p"]]:
    """Columns of pairs, :data:`MATCH_COLUMNS`, in double precision.

    What is not finite of the matches makes errors infinite; confidence and co-visibility that the model expects stay
    NaN.

    Args:
        matches: predicted.
        target: ground truth.
        images: what its agents see.
        covisibility: true one of the pairs.
    """
    pose_true = agent_poses(target.pose, target)
    ends = pair_ends(pose_true.shape[1], pose_true.device)
    true, aligned = relative_pose(pose_true[:, ends[0]], pose_true[:, ends[1]]), matches.pose.detach().double()
    expected = matches.covisibility_logit.detach().double().sigmoid()
    trans_m = torch.linalg.vector_norm(aligned[..., :3, 3] - true[..., :3, 3], dim=-1)
    rot_deg = torch.rad2deg(rotation_angle(aligned[..., :3, :3].mT @ true[..., :3, :3]))
    deviations = squared_mahalanobis(aligned, matches.information.detach().double(), true).clamp(min=0).sqrt()
    everywhere = torch.ones_like(matches.degenerate)
    return {
        "confidence": matches.confidence_logit.detach().double().sigmoid(),
        "covisibility_pred": expected,
        "covisibility_error": or_infinite((expected - covisibility).abs(), ~covisibility.isnan()),
        "degenerate": matches.degenerate.double(),
        "matches_kept": (matches.weight.nan_to_num() * matches.inlier).detach().double().sum(dim=-1),
        "match_accuracy": _accuracy(matches, target, images, pose_true, ends),
        "aligned_trans_m": or_infinite(trans_m, everywhere),
        "aligned_rot_deg": or_infinite(rot_deg, everywhere),
        "aligned_mahalanobis": or_infinite(deviations, everywhere).masked_fill(matches.degenerate, torch.nan),
    }


def cell_range_figures(prediction: Prediction, target: Target, num_cells: int) -> dict[str, Float[Tensor, " b"]]:
    """Medians of the absolute and the relative error of the range at the centers of cells, of which poses are made."""
    patch = patch_side(target, num_cells)
    predicted, true, valid = (
        at_centers(values, patch).flatten(1) for values in (prediction.depth.detach(), target.depth, target.valid)
    )
    error = or_infinite((predicted.double() - true.double()).abs(), valid).masked_fill(~valid, torch.nan)
    return {"cell_range_m": _median(error), "cell_range_abs_rel": _median(error / true)}


def _median(values: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Of the values that are not NaN; between infinite ones, linear interpolation would find NaN."""
    low, high = (values.nanquantile(0.5, dim=1, interpolation=side) for side in ("lower", "higher"))
    return (low + high) / 2


def _accuracy(
    matches: PairMatches,
    target: Target,
    images: RangeImages,
    pose: Float[Tensor, "b n 4 4"],
    ends: Int[Tensor, "2 p"],
) -> Float[Tensor, "b p"]:
    """Share of the cells whose point the other agent sees that match the right cell; both directions."""
    patch = patch_side(target, matches.scores.shape[-1])
    each = views_per_agent(target)
    points = by_agent(in_agent_frame(at_centers(target.points_view, patch), target), each)
    known = by_agent(at_centers(target.valid, patch), each)
    right, seen = [], []
    for asking, asked, scores in ((ends[0], ends[1], matches.scores), (ends[1], ends[0], matches.scores.mT)):
        best = best_cells(scores.detach(), matches.unmatched.detach()[:, asked])
        there = transform_points(relative_pose(pose[:, asked], pose[:, asking]).to(points), points[:, asking])
        looked_up = is_seen(there, images.near[:, asked], images.far[:, asked]) & known[:, asking]
        seen.append(looked_up)
        right.append(looked_up & _is_near(there, best, asked, target, patch))
    return torch.cat(right, dim=-1).sum(dim=-1).double() / torch.cat(seen, dim=-1).sum(dim=-1)


def best_cells(scores: Float[Tensor, "b p c c"], unmatched_asked: Float[Tensor, "b p c"]) -> Int[Tensor, "b p c"]:
    """The cell of the other agent with the largest product of both directions' probabilities."""
    column = torch.logsumexp(torch.cat([scores, unmatched_asked[:, :, None]], dim=2), dim=2)
    return (2 * scores - column[:, :, None]).argmax(dim=-1)


def _is_near(
    there: Float[Tensor, "b p c 3"],
    best: Int[Tensor, "b p c"],
    asked: Int[Tensor, " p"],
    target: Target,
    patch: int,
) -> Bool[Tensor, "b p c"]:
    """Whether points in the other agent's frame lie in the direction of a cell's center, seen from the cell's view."""
    each = views_per_agent(target)
    rays = at_centers(target.rays, patch)
    center = by_agent(rays, each)[:, asked].gather(2, best[..., None].expand(-1, -1, -1, 3))
    if target.rig_pose is not None:  # views are cameras
        per_agent = target.rig_pose.unflatten(1, (-1, each))[:, asked]
        view = best.div(rays.shape[2], rounding_mode="floor")
        camera_from_agent = invert(per_agent).to(there).gather(2, view[..., None, None].expand(-1, -1, -1, 4, 4))
        there = transform_points(camera_from_agent, there[..., None, :])[..., 0, :]
    cosine = (center * torch.nn.functional.normalize(there, dim=-1)).sum(dim=-1)
    return cosine > (WITHIN_CELLS * cell_angle(target.rays, patch)).cos()
