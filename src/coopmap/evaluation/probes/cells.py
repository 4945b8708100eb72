"""Probes of the cells that matches lie in: those that no camera covers, and those on moving vehicles."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.config.model import ModelConfig
from coopmap.evaluation.probes.columns import Columns, by_sample, errors_of
from coopmap.geometry.alignment import align
from coopmap.geometry.cells import at_centers, by_agent, cell_angle
from coopmap.geometry.pairs import pair_ends
from coopmap.metrics import predicted_pose
from coopmap.metrics.reduce import or_unanswered
from coopmap.models.addons.matching.cells import cell_points, down_directions, lines_of_sight
from coopmap.models.addons.matching.matches import assignment, correspond
from coopmap.models.addons.matching.poses import pair_problem, with_aligned_poses
from coopmap.types import Batch, Observation, PairMatches, Prediction
from coopmap.types.agents import cameras_per_agent, views_per_agent

CONFIDENT = 0.2
"""Confidence from which on LoFTR (Sun et al., 2021) takes a match."""


class BlindWedges:
    """Matches of cells of which no camera covers a pixel.

    Args:
        patch_size: side of a cell in pixels.
    """

    def __init__(self, patch_size: int) -> None:
        self.patch_size = patch_size

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Of each pair: the share of cells there, and of the ends of confident and of (weighted) all matches."""
        if prediction.matches is None:
            return [{} for _ in batch.metas]
        target = batch.target
        blind = by_agent(~any_pixel(target.non_ambiguous, self.patch_size), views_per_agent(target))
        return by_sample("blind", share_of_matches(prediction.matches, blind))


class MovingVehicles:
    """Poses from the matches that are left without cells that show a moving vehicle.

    Args:
        model: that takes its poses from alignment.
    """

    def __init__(self, model: ModelConfig) -> None:
        self.model = model

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Errors of all pairs, NaN where nothing is left, and the share of cells and matches that are left out."""
        target = batch.target
        if prediction.matches is None or target.moving is None:
            return [{} for _ in batch.metas]
        moving = by_agent(any_pixel(target.moving, self.model.encoder.patch_size), views_per_agent(target))
        rest = answer_without(moving, prediction, observation, self.model)
        errors = errors_of(predicted_pose(rest), target)
        answered = {name: or_unanswered(values) for name, values in errors.items()}
        return by_sample("moving", answered | share_of_matches(prediction.matches, moving))


def any_pixel(mask: Bool[Tensor, "b v h w"], patch_size: int) -> Bool[Tensor, "b v n"]:
    """Cells with a pixel of a mask."""
    return F.max_pool2d(mask.float(), patch_size).flatten(2) > 0


def share_of_matches(matches: PairMatches, chosen: Bool[Tensor, "b a c"]) -> dict[str, Float[Tensor, "b p"]]:
    """Shares of the two ends of a pair that lie in some cells: of its cells, its confident matches, all its matches.

    Where matches have nothing to do with the choice, all three are equal. Those of ``weight`` are weighted by
    confidence. NaN without a (confident) match.
    """
    agents = chosen.shape[1]
    ends = pair_ends(agents, chosen.device)
    there = torch.stack([chosen[:, end].gather(2, matches.matched[..., side]) for side, end in enumerate(ends)], dim=-1)
    there = there.double().mean(dim=-1)
    weight = matches.weight.double()
    confident = (weight > CONFIDENT).double()
    cells = chosen.double().mean(dim=-1)
    return {
        "cells": (cells[:, ends[0]] + cells[:, ends[1]]) / 2,
        "matches": (confident * there).sum(dim=-1) / confident.sum(dim=-1),
        "weight": (weight * there).sum(dim=-1) / weight.sum(dim=-1),
    }


def answer_without(
    left_out: Bool[Tensor, "b a c"], prediction: Prediction, observation: Observation, model: ModelConfig
) -> Prediction:
    """The prediction with poses from its matches without some cells; NaN where these determine none.

    Pairs count by the confidence that the model has in them with all cells.

    Args:
        left_out: cells that take part in no match.
        prediction: of the model.
        observation: what it was given.
        model: options of its alignment.
    """
    matches, cfg, patch = prediction.matches, model.matching, model.encoder.patch_size
    assert matches is not None
    views = cameras_per_agent(observation)
    grid = (observation.rays.shape[2] // patch, observation.rays.shape[3] // patch)
    seen = by_agent(at_centers(prediction.mask_logits, patch).sigmoid(), views).masked_fill(left_out, 0.0)
    rows, columns = assignment(matches.scores, matches.unmatched)
    points = cell_points(prediction, observation, patch, cfg.rays)
    found = correspond(rows, columns, matches.query, matches.keys, points, seen, grid, cfg.max_matches)
    lines = lines_of_sight(observation, patch, cfg.rays)
    down = down_directions(observation) if cfg.gravity else None
    angle = cell_angle(observation.rays, patch)
    problem = pair_problem(found, matches.range_sigma, angle, cfg.tilt_sigma_deg, lines, down)
    problem = problem.lengthened(matches.lengthening)
    alignment = align(*problem)
    unsolved = replace(
        prediction,
        matches=replace(matches, pose=alignment.pose, degenerate=alignment.degenerate),
        pose_trans=torch.full_like(prediction.pose_trans, torch.nan),
    )
    return with_aligned_poses(unsolved, observation, views, "alignment", problem)
