"""Measures of matches, in a room in which every agent sees everything and true matches are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from coopmap.geometry.cells import PARTS
from coopmap.geometry.se3 import invert, transform_points
from coopmap.losses.cells import true_matches
from coopmap.metrics import aggregate, measure
from coopmap.metrics.matching import MATCH_COLUMNS, best_cells
from coopmap.types import PairMatches, Prediction, Target

from ..rooms import exact_prediction, points_in_world, room, three_poses

CELLS = 64


@pytest.fixture
def target() -> Target:
    return room(three_poses())


def matches_of(target: Target) -> PairMatches:
    """True scores and poses."""
    found = true_matches(target, CELLS, 0.4)
    scores = torch.zeros(1, 3, CELLS, CELLS)
    for side, view in enumerate((scores, scores.mT)):
        cell = found.part[side].div(PARTS**2, rounding_mode="floor")
        view.scatter_(3, cell[..., None], 20.0 * found.matched[side][..., None].float())
    nothing = torch.zeros(1, 3)
    return PairMatches(
        scores=scores,
        unmatched=torch.zeros(1, 3, CELLS),
        query=torch.zeros(1, 3, CELLS, 8),
        keys=torch.zeros(1, 3, CELLS, PARTS**2, 8),
        range_sigma=torch.full((1, 3, CELLS), 0.1),
        pose=found.pose,
        lengthening=torch.ones(1, 3),
        information=torch.eye(6).expand(1, 3, 6, 6),
        degenerate=torch.tensor([[False, False, True]]),
        confidence_logit=torch.tensor([[0.0, 40.0, -40.0]]),
        covisibility_logit=nothing,
        matched=torch.zeros(1, 3, 4, 2, dtype=torch.int64),
        weight=torch.full((1, 3, 4), 0.5),
        inlier=torch.tensor([1.0, 1.0, 0.5, 0.0]).expand(1, 3, 4),
    )


def pairs_of(prediction: Prediction, matches: PairMatches, target: Target) -> dict[str, list[float]]:
    rows = measure(replace(prediction, matches=matches), target)
    return {name: rows.pairs[name][0].tolist() for name in MATCH_COLUMNS}


def test_what_is_read_off_the_matches(target: Target):
    matches = matches_of(target)
    off = matches.pose.clone()
    off[0, 1, :3, 3] += torch.tensor([3.0, 0.0, 4.0])
    found = pairs_of(exact_prediction(target), replace(matches, pose=off), target)
    assert found["confidence"] == pytest.approx([0.5, 1.0, 0.0])
    assert found["degenerate"] == [0.0, 0.0, 1.0]
    assert found["matches_kept"] == pytest.approx([1.25] * 3)
    assert found["aligned_trans_m"] == pytest.approx([0.0, 5.0, 0.0], abs=1e-4)
    assert found["aligned_rot_deg"] == pytest.approx([0.0] * 3, abs=0.05)
    assert found["aligned_mahalanobis"] == pytest.approx([0.0, 5.0, math.nan], abs=1e-3, nan_ok=True)
    shared = measure(exact_prediction(target), target).pairs["covisibility"][0]
    assert found["covisibility_pred"] == [0.5] * 3
    assert found["covisibility_error"] == pytest.approx((0.5 - shared).abs().tolist())


def direction_to(target: Target, asking: int, asked: int) -> torch.Tensor:
    """Directions ``(c, 3)`` in which an agent sees the centers of another's cells."""
    world = points_in_world(target)[0, asking, 7::14, 7::14].flatten(0, 1)
    there = transform_points(invert(target.pose[0, asked]), world)
    return there / there.norm(dim=-1, keepdim=True)


def test_right_are_cells_that_point_where_the_other_agent_sees_the_point(target: Target):
    """Counted anew from angles: an empty room hides nothing, so a point is seen up to an elevation of 45 degrees."""
    rays = target.rays[0, 0, 7::14, 7::14].flatten(0, 1)
    matches, prediction = matches_of(target), exact_prediction(target)
    random = 3 * torch.randn(1, 3, CELLS, CELLS)
    turned = matches.scores.unflatten(3, (4, 16)).roll(2, dims=4).flatten(3)
    for scores, least, most in ((matches.scores, 0.4, 1.0), (turned, 0.0, 0.2), (random, 0.0, 0.2)):
        found = pairs_of(prediction, replace(matches, scores=scores), target)["match_accuracy"]
        for pair, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
            right, seen = 0, 0
            for asking, asked, view in ((i, j, scores[:, [pair]]), (j, i, scores[:, [pair]].mT)):
                there = direction_to(target, asking, asked)
                best = rays[best_cells(view, torch.zeros(1, 1, CELLS))[0, 0]]
                inside = there[:, 1].abs() < math.sin(math.pi / 4)
                near = torch.rad2deg((there * best).sum(dim=-1).clamp(-1, 1).acos()) < 0.75 * 22.5
                right, seen = right + int((near & inside).sum()), seen + int(inside.sum())
            assert found[pair] == pytest.approx(right / seen, abs=0.03)
            assert least <= found[pair] <= most


def test_a_cell_that_knows_where_its_point_is_seen_is_right(target: Target):
    """One direction knows everything: at least half of all."""
    rays = target.rays[0, 0, 7::14, 7::14].flatten(0, 1)
    scores = torch.zeros(1, 3, CELLS, CELLS)
    for pair, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        nearest = (direction_to(target, i, j) @ rays.mT).argmax(dim=-1)
        scores[0, pair].scatter_(1, nearest[:, None], 20.0)
    found = pairs_of(exact_prediction(target), replace(matches_of(target), scores=scores), target)
    assert min(found["match_accuracy"]) > 0.5


def test_the_best_cell_has_the_largest_product_of_both_probabilities():
    scores, unmatched = torch.randn(1, 1, 5, 7), torch.randn(1, 1, 7)
    rows = scores.softmax(dim=3)
    columns = torch.cat([scores, unmatched[:, :, None]], dim=2).softmax(dim=2)[:, :, :-1]
    assert torch.equal(best_cells(scores, unmatched), (rows * columns).argmax(dim=-1))


def test_ranges_at_the_cells(target: Target):
    """Only the centers of cells count, by their median."""
    exact = replace(exact_prediction(target), matches=matches_of(target))
    assert measure(exact, target).samples["cell_range_m"].item() == pytest.approx(0.0, abs=1e-5)
    wrong = 3 * target.depth
    wrong[:, :, 7::14, 7::14] = 1.1 * target.depth[:, :, 7::14, 7::14]
    samples = measure(replace(exact, depth=wrong), target).samples
    assert samples["cell_range_abs_rel"].item() == pytest.approx(0.1, abs=1e-4)
    centers = target.depth[:, :, 7::14, 7::14].flatten()
    assert samples["cell_range_m"].item() == pytest.approx(0.1 * centers.quantile(0.5).item(), rel=1e-3)
    lost = wrong.clone()
    lost[:, 0] = math.nan  # a third of the cells are failures: the median is the 75th percentile of the others
    samples = measure(replace(exact, depth=lost), target).samples
    left = target.depth[:, 1:, 7::14, 7::14].flatten()
    assert samples["cell_range_m"].item() == pytest.approx(0.1 * left.quantile(0.75).item(), rel=0.05)
    assert measure(replace(exact, depth=wrong * math.nan), target).samples["cell_range_m"].item() == math.inf


def test_means_over_pairs_and_none_without_matches(target: Target):
    rows = measure(replace(exact_prediction(target), matches=matches_of(target)), target)
    columns = {name: column.flatten().numpy() for name, column in rows.pairs.items()}
    samples = {name: column.numpy() for name, column in rows.samples.items()}
    figures = aggregate(samples, columns)
    assert figures["confidence_mean"] == pytest.approx(0.5)
    assert figures["degenerate_mean"] == pytest.approx(1 / 3)
    assert figures["matches_kept_median"] == pytest.approx(1.25)
    assert figures["cell_range_abs_rel"] == pytest.approx(0.0, abs=1e-5)
    without = measure(exact_prediction(target), target)
    columns = {name: column.flatten().numpy() for name, column in without.pairs.items()}
    assert not {"confidence_mean", "match_accuracy_mean"} & aggregate({}, columns).keys()
