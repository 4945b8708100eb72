"""Terms that teach matches, poses from matches, and what to expect of them; zero for samples of a single agent."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry.alignment import squared_mahalanobis
from coopmap.geometry.cells import PARTS, at_centers, by_agent, compare, neighbors
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import rotation_angle
from coopmap.losses.cells import TrueMatches, cell_grid
from coopmap.losses.inputs import LossInputs
from coopmap.losses.pixels import PixelLoss
from coopmap.losses.reduce import weighted_mean
from coopmap.types import PairMatches
from coopmap.types.agents import patch_side, views_per_agent

UNMATCHED_WEIGHT = 0.25
"""Of cells without a match; there are more of them, and they are easier."""
NEARLY_M, NEARLY_RAD = 5.0, math.radians(15.0)
"""Errors up to which an aligned pose teaches."""
CENTER = 4
"""Of a cell among its neighbors."""
SUCCESS_M, SUCCESS_DEG = 2, 5
"""What the confidence of a pair's pose predicts: that its errors are no larger, as in the recall of this name."""
SMALLEST_RANGE_M = 0.5
MEDIAN_SQUARED = 5.348
"""Of the squared size of a pose's error in standard deviations: chi-squared's, of 6 degrees of freedom."""
LEAST_SQUARED = 1e-3
"""Smaller ones count as this."""


def matching_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Cross entropy of each cell's distribution over the other agent's cells and "no match" (InfoNCE both ways), and of
    the parts in and around the true cell.
    """
    matches, true = inputs.matches, inputs.true_matches
    if matches is None or true is None:
        return _nothing(inputs)
    total = _nothing(inputs)
    agents, cells = matches.unmatched.shape[1:]
    ends = pair_ends(agents, matches.scores.device)
    for side, scores in enumerate((matches.scores, matches.scores.mT)):
        log_p = torch.cat([scores, matches.unmatched[:, ends[side], :, None]], dim=-1).log_softmax(dim=-1)
        matched, unmatched = (part[side].to(log_p) for part in (true.matched, true.unmatched))
        cell = true.part[side].div(PARTS**2, rounding_mode="floor")
        found, none = (-log_p.gather(-1, torch.stack([cell, torch.full_like(cell, cells)], dim=-1))).unbind(-1)
        placed = _part_loss(matches.query[:, ends[side]], matches.keys[:, ends[1 - side]], true.part[side], inputs)
        total = total + _mean(found + placed, matched) + UNMATCHED_WEIGHT * _mean(none, unmatched)
    return total / 2


def has_cells(inputs: LossInputs) -> Bool[Tensor, " b"]:
    """Samples in which some cell of some pair is known to match or not to."""
    true = inputs.true_matches
    if true is None:
        return _no(inputs)
    return torch.stack([part.flatten(1).any(dim=1) for part in (*true.matched, *true.unmatched)]).any(dim=0)


def _part_loss(
    query: Float[Tensor, "b p c f"], keys: Float[Tensor, "b p c s f"], part: Int[Tensor, "b p c"], inputs: LossInputs
) -> Float[Tensor, "b p c"]:
    """Cross entropy of the true part among those of the true cell and of the cells around it."""
    parts = keys.shape[3]
    cell = part.div(parts, rounding_mode="floor")
    around = neighbors(cell, cell_grid(inputs.target, keys.shape[2]))
    logits = compare(query, keys, around)
    return F.cross_entropy(logits.movedim(-1, 1), CENTER * parts + part % parts, reduction="none")


def alignment_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """``log(1 + m) + log(1 + deg / 2)`` of the errors of the aligned poses, of pairs that are nearly right.

    The pose of a pair that is far off is one of many accidents of wrong matches: its gradient is noise, and it drowns
    what the true matches teach.
    """
    matches, true = inputs.matches, inputs.true_matches
    if matches is None or true is None:
        return _nothing(inputs)
    teaches = _nearly_right(matches, true)
    # The others are left out before anything is computed: an infinite pose has no gradient that 0 could cancel.
    pose = torch.where(teaches[..., None, None], matches.pose, true.pose)
    meters, radians = _errors(replace(matches, pose=pose), true)
    loss = torch.log1p(meters) + torch.log1p(torch.rad2deg(radians) / 2)
    return _mean(loss, teaches.to(loss))


def has_poses(inputs: LossInputs) -> Bool[Tensor, " b"]:
    """Samples in which some pair is nearly right."""
    matches, true = inputs.matches, inputs.true_matches
    return _no(inputs) if matches is None or true is None else _nearly_right(matches, true).any(dim=1)


def covisibility_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Cross entropy of the predicted co-visibility."""
    matches, true = inputs.matches, inputs.true_matches
    if matches is None or true is None:
        return _nothing(inputs)
    known = true.covisibility.isfinite()
    share = torch.where(known, true.covisibility, 0.0).to(matches.scores)
    loss = F.binary_cross_entropy_with_logits(matches.covisibility_logit, share, reduction="none")
    return _mean(loss, known.to(loss))


def has_covisibility(inputs: LossInputs) -> Bool[Tensor, " b"]:
    """Samples in which both agents of some pair know points."""
    true = inputs.true_matches
    return _no(inputs) if true is None else true.covisibility.isfinite().any(dim=1)


def confidence_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Cross entropy of the predicted success of the aligned poses; likelihood of the errors of the ranges; how far
    errors of right poses are from what their standard deviations say.
    """
    matches, true = inputs.matches, inputs.true_matches
    if matches is None or true is None:
        return _nothing(inputs)
    meters, radians = (error.detach() for error in _errors(matches, true))
    within = (meters <= SUCCESS_M) & (radians.rad2deg() <= SUCCESS_DEG)
    success = within & ~matches.degenerate & ~true.foreign
    loss = F.binary_cross_entropy_with_logits(matches.confidence_logit, success.to(meters), reduction="none")
    return loss.mean() + _range_likelihood(inputs, matches) + _precision_loss(matches, true, success)


def has_pairs(inputs: LossInputs) -> Bool[Tensor, " b"]:
    """Samples with two agents whose pose is aligned."""
    return _no(inputs) if inputs.matches is None else ~_no(inputs)


def range_loss(inputs: LossInputs) -> PixelLoss:
    """``|log range - log true range|`` in meters: unlike the published terms, which divide by the mean distance, it
    teaches what metric poses need.
    """

    def rows(predicted: Tensor, true: Tensor) -> Tensor:
        return _log_range_error(predicted, true).abs()

    return PixelLoss(rows, (inputs.prediction.depth, inputs.target.depth))


def _log_range_error(predicted: Float[Tensor, "*b"], true: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    return predicted.clamp(min=1e-3).log() - true.clamp(min=SMALLEST_RANGE_M).log()


def _precision_loss(matches: PairMatches, true: TrueMatches, right: Bool[Tensor, "b p"]) -> Float[Tensor, ""]:
    """Absolute logarithm of the squared size of an error, in standard deviations, over its median for normal errors.

    Its gradient is bounded, where that of the likelihood is not: a single error of ten standard deviations would be
    worth a hundred others.
    """
    pose = torch.where(right[..., None, None], matches.pose.detach(), true.pose)
    squared = squared_mahalanobis(pose, matches.information, true.pose)
    return _mean((squared.clamp(min=LEAST_SQUARED).log() - math.log(MEDIAN_SQUARED)).abs(), right.to(squared))


def _range_likelihood(inputs: LossInputs, matches: PairMatches) -> Float[Tensor, ""]:
    """Negative log likelihood (Laplace) of the errors of the ranges at the centers of the cells; trains their scale."""
    patch = patch_side(inputs.target, matches.unmatched.shape[2])
    views = views_per_agent(inputs.target)
    predicted, true, valid = (
        by_agent(at_centers(values, patch), views)
        for values in (inputs.prediction.depth.detach(), inputs.target.depth, inputs.valid)
    )
    error = _log_range_error(predicted, true).abs()
    scale = matches.range_sigma / math.sqrt(2)
    return _mean(error / scale + scale.log(), valid.to(error))


def _errors(matches: PairMatches, true: TrueMatches) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]]:
    """Error of the translation (m) and the rotation (rad) of ``T_i_j``."""
    shift = matches.pose[..., :3, 3] - true.pose[..., :3, 3]
    turn = matches.pose[..., :3, :3].mT @ true.pose[..., :3, :3]
    return (shift.square().sum(dim=-1) + 1e-8).sqrt(), rotation_angle(turn)


def _nearly_right(matches: PairMatches, true: TrueMatches) -> Bool[Tensor, "b p"]:
    meters, radians = _errors(matches, true)
    return (meters < NEARLY_M) & (radians < NEARLY_RAD) & ~matches.degenerate & ~true.foreign


def _mean(values: Float[Tensor, "*b"], weights: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    return weighted_mean(values, weights, tuple(range(values.ndim)))


def _nothing(inputs: LossInputs) -> Float[Tensor, ""]:
    return inputs.prediction.scale.sum() * 0.0


def _no(inputs: LossInputs) -> Bool[Tensor, " b"]:
    return torch.zeros_like(inputs.has_depth[:, 0])
