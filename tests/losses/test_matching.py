"""True matches, and the terms that teach them, in a room in which every agent sees everything."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from coopmap.config.loss import LossConfig, LossWeights
from coopmap.geometry.cells import PARTS, neighbors
from coopmap.geometry.se3 import relative_pose
from coopmap.losses.cells import TOLERANCE_CELLS, TOLERANCE_M, cell_grid, true_matches
from coopmap.losses.criterion import Criterion
from coopmap.losses.matching import LEAST_SQUARED, MEDIAN_SQUARED
from coopmap.types import PairMatches, Target

from ..rooms import exact_prediction, in_quarters, level_pose, panorama_rays, points_in_world, room, sparse, three_poses

PATCH = 14
CELLS = 4 * 16
PAIRS = ((0, 1), (0, 2), (1, 2))
ONLY = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)


@pytest.fixture
def target() -> Target:
    return room(three_poses())


def part_points(target: Target, view: int) -> torch.Tensor:
    """World points at the centers of the parts of each cell, ``(c * s, 3)``, found without the program's helpers."""
    side = PATCH // PARTS
    world = points_in_world(target)[0, view]
    rows, columns = (size // PATCH for size in world.shape[:2])
    return torch.stack(
        [
            world[row * PATCH + top * side + side // 2, column * PATCH + left * side + side // 2]
            for row in range(rows)
            for column in range(columns)
            for top in range(PARTS)
            for left in range(PARTS)
        ]
    )


def test_a_single_row_of_cells_matches_too(target: Target):
    """No cell lies below another: cells are as far apart as side by side."""
    row = {name: getattr(target, name)[:, :, 21:35] for name in ("rays", "depth", "valid", "non_ambiguous")}
    found = true_matches(replace(target, **row), 16, 0.4)
    assert all(side.any() for side in found.matched)


def test_cells_of_cameras_match_as_those_of_their_panorama(target: Target):
    """Range images have as many columns as all cameras of an agent together; one camera has a quarter of them."""
    behind = target.depth.clone()
    behind[:, 1] *= 0.4  # a wall around the second agent hides the others' cells
    target = replace(target, depth=behind)
    of_cameras, found = true_matches(in_quarters(target), CELLS, 0.4), true_matches(target, CELLS, 0.4)
    by_camera = torch.stack(torch.arange(CELLS).view(4, 16).chunk(4, dim=1)).flatten()
    torch.testing.assert_close(of_cameras.covisibility, found.covisibility)
    for side in (0, 1):
        assert torch.equal(of_cameras.unmatched[side], found.unmatched[side][..., by_camera])


def test_a_match_is_the_nearest_part_of_the_same_surface(target: Target):
    found = true_matches(target, CELLS, 0.4)
    world = points_in_world(target)[0]
    centers = world[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten(1, 2)
    for pair, ends in enumerate(PAIRS):
        for side, (asking, asked) in enumerate((ends, ends[::-1])):
            distance = torch.cdist(centers[asking].double(), part_points(target, asked).double())
            nearest, part = distance.min(dim=-1)
            ranges = (centers[asking] - target.pose[0, asked, :3, 3]).norm(dim=-1)
            near = nearest < TOLERANCE_M + TOLERANCE_CELLS * 2 * math.pi / 16 * ranges
            matched = found.matched[side][0, pair]
            assert matched.sum() > CELLS / 4
            clear = (nearest - TOLERANCE_M - TOLERANCE_CELLS * 2 * math.pi / 16 * ranges).abs() > 0.05
            assert not (matched & ~near & clear).any()
            assert (near & ~matched).sum() <= 2  # at the upper and lower edges
            chosen = distance.gather(1, found.part[side][0, pair][:, None])[:, 0]
            assert torch.allclose(chosen[matched], nearest[matched], atol=1e-4)
            assert torch.allclose(part_points(target, asked)[part][matched], centers[asking][matched], atol=4.5)


def test_poses_of_pairs(target: Target):
    found = true_matches(target, CELLS, 0.4)
    for pair, (i, j) in enumerate(PAIRS):
        assert torch.allclose(found.pose[0, pair], relative_pose(target.pose[0, i], target.pose[0, j]), atol=1e-5)


def test_covisibility_is_what_lies_in_the_other_panorama(target: Target):
    """In an empty room nothing is hidden: a point is seen if its elevation is within 45 degrees."""
    found = true_matches(target, CELLS, 0.4)
    centers = points_in_world(target)[0, :, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten(1, 2)
    for pair, ends in enumerate(PAIRS):
        shares = []
        for side, (asking, asked) in enumerate((ends, ends[::-1])):
            seen_from = centers[asking] - target.pose[0, asked, :3, 3]
            elevation = torch.rad2deg(torch.atan2(-seen_from[:, 1], seen_from[:, [0, 2]].norm(dim=-1))).abs()
            shares.append((elevation < 45).float().mean())
            outside = elevation[found.unmatched[side][0, pair]] > 44
            assert (~outside).sum() <= 2  # where walls meet, ranges change within a pixel
        assert found.covisibility[0, pair].item() == pytest.approx(sum(shares).item() / 2, abs=0.04)


def test_ground_at_grazing_angles_is_not_taken_for_hidden():
    """On an open plain both see all ground; from one pixel to the next it goes on by more than is allowed for."""
    pose = torch.stack([level_pose(0, 0, 0), level_pose(12, 16, 130)])[None]
    rays = panorama_rays(80, 320).expand(1, 2, -1, -1, -1)
    depth = 1.9 / rays[..., 1].clamp(min=1e-9)
    valid = depth < 60
    flags = torch.ones(1, dtype=torch.bool)
    plain = Target(rays, depth * valid, valid, torch.ones_like(valid), pose, flags, flags)
    found = true_matches(plain, 10 * 40, 0.4)
    centers = points_in_world(plain)[0, :, 4::8, 4::8].flatten(1, 2)
    known = valid[0, :, 4::8, 4::8].flatten(1)
    for side, (asking, asked) in enumerate(((0, 1), (1, 0))):
        away = (centers[asking] - pose[0, asked, :3, 3]).norm(dim=-1)
        seen = known[asking] & (away > 4) & (away < 38)
        assert seen.sum() > 100
        assert not (found.unmatched[side][0, 0] & seen).any()


def test_behind_a_wall_nothing_is_shared():
    """The same room twice, 100 m apart."""
    here, there = room(level_pose(0, 0, 0)[None, None]), room(level_pose(3, 2, 40)[None, None])
    moved = there.pose.clone()
    moved[..., 0, 3] += 100.0
    both = Target(
        *(
            torch.cat([getattr(here, name), getattr(there, name)], dim=1)
            for name in ("rays", "depth", "valid", "non_ambiguous")
        ),
        pose=torch.cat([here.pose, moved], dim=1),
        is_metric=here.is_metric,
        is_synthetic=here.is_synthetic,
    )
    found = true_matches(both, CELLS, 0.4)
    assert found.covisibility.item() == 0.0
    assert all(part.all() for part in found.unmatched)
    assert not any(part.any() for part in found.matched)


def test_lidar_alone_gives_the_same_matches(target: Target):
    """A sixth of the pixels: the matches found are between points as near to one another."""
    found = true_matches(sparse(target, 1 / 6), CELLS, 0.4)
    dense = true_matches(target, CELLS, 0.4)
    for few, all_ in zip(found.matched, dense.matched, strict=True):
        assert few.sum() > 0.7 * all_.sum()


def test_unknown_depth_teaches_nothing_where_it_is_sparse_and_sky_where_it_is_dense(target: Target):
    upper = torch.zeros_like(target.valid)
    upper[:, :, :PATCH] = True  # the first row of cells
    sky = replace(target, valid=target.valid & ~upper, depth=target.depth * ~upper)
    first_row = torch.arange(CELLS) < 16
    dense, unsure = true_matches(sky, CELLS, 0.4), true_matches(sky, CELLS, 0.8)
    for side in range(2):
        assert (dense.unmatched[side] & first_row).sum() == 16 * len(PAIRS)
        assert not (unsure.unmatched[side] & first_row).any()
        assert not (dense.matched[side] & first_row).any()


def matches_from_truth(target: Target, sharpness: float) -> PairMatches:
    """Scores that say the truth: ``sharpness`` where cells match."""
    found = true_matches(target, CELLS, 0.4)
    scores = torch.zeros(1, len(PAIRS), CELLS, CELLS)
    for side, view in enumerate((scores, scores.mT)):
        cell = found.part[side].div(PARTS**2, rounding_mode="floor")
        view.scatter_(3, cell[..., None], sharpness * found.matched[side][..., None].float())
    none = torch.zeros(1, len(PAIRS))
    return PairMatches(
        scores=scores,
        unmatched=torch.zeros(1, 3, CELLS),
        query=torch.zeros(1, 3, CELLS, 8),
        keys=torch.zeros(1, 3, CELLS, PARTS**2, 8),
        range_sigma=torch.full((1, 3, CELLS), 0.1),
        pose=found.pose,
        lengthening=torch.ones(1, len(PAIRS)),
        information=torch.eye(6).expand(1, len(PAIRS), 6, 6),
        degenerate=none.bool(),
        confidence_logit=none,
        covisibility_logit=none,
        matched=torch.zeros(1, len(PAIRS), 4, 2, dtype=torch.int64),
        weight=torch.zeros(1, len(PAIRS), 4),
        inlier=torch.zeros(1, len(PAIRS), 4),
    )


def terms_of(target: Target, matches: PairMatches, **weights: float) -> dict[str, float]:
    criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, **weights})))
    prediction = replace(exact_prediction(target), matches=matches)
    return {name: value.item() for name, value in criterion(prediction, target)[1].items()}


def test_matching_falls_from_the_entropy_of_knowing_nothing_to_that_of_the_parts(target: Target):
    """Parts, whose descriptors are all zero here, stay at the logarithm of their number, at the edges fewer.

    Some matches of the two directions contradict one another at this size.
    """
    nothing = terms_of(target, matches_from_truth(target, 0.0), matching=1.0)["matching"]
    unmatched = sum(part.any() for part in true_matches(target, CELLS, 0.4).unmatched) / 2
    around = neighbors(torch.arange(CELLS), cell_grid(target, CELLS))
    inner = sum(len(set(row)) == 9 for row in around.tolist()) / CELLS
    parts = (math.log(24), math.log(36))
    assert 0 < inner < 1
    bounds = [math.log(CELLS + 1) * (1 + 0.25 * float(unmatched)) + part for part in parts]
    assert bounds[0] - 1e-4 < nothing < bounds[1] + 1e-4
    informed = matches_from_truth(target, 6.0)
    assert terms_of(target, informed, matching=1.0)["matching"] < nothing - 0.3 * math.log(CELLS)


def test_alignment_and_confidence_know_a_true_pose(target: Target):
    true = matches_from_truth(target, 50.0)
    off = true.pose.clone()
    off[..., 0, 3] += 3.0
    wrong = replace(true, pose=off)
    weights = {"alignment": 1.0, "confidence": 1.0}
    assert terms_of(target, true, **weights)["alignment"] == pytest.approx(0.0, abs=2e-3)
    assert terms_of(target, wrong, **weights)["alignment"] == pytest.approx(math.log(4), abs=2e-3)
    # logits of 0: log 2 whatever the outcome; sure of itself: nothing, or all of it
    sure = {"confidence_logit": torch.full((1, len(PAIRS)), 8.0)}
    base = terms_of(target, wrong, **weights)["confidence"]
    exact = math.log(MEDIAN_SQUARED / LEAST_SQUARED)  # with standard deviations of a meter
    assert terms_of(target, true, **weights)["confidence"] == pytest.approx(base + exact, abs=1e-3)
    assert terms_of(target, replace(true, **sure), **weights)["confidence"] == pytest.approx(
        base + exact - math.log(2), abs=1e-3
    )
    assert terms_of(target, replace(wrong, **sure), **weights)["confidence"] == pytest.approx(
        base - math.log(2) + 8, abs=1e-3
    )


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_precision_is_learned_from_errors_of_right_poses(target: Target, factor: float):
    """Least where half of the errors are as small as the standard deviations say; poses are not taught by it."""
    true = matches_from_truth(target, 50.0)
    pose = true.pose.clone()
    pose[0, 0, 0, 3] += 1.5  # right
    pose[0, 1:, 0, 3] += 3.0  # not within 2 m
    information = (factor * MEDIAN_SQUARED / 1.5**2 * torch.eye(6)).expand(1, len(PAIRS), 6, 6).clone().requires_grad_()
    matches = replace(true, pose=pose.requires_grad_(), information=information)
    criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, "confidence": 1.0})))
    term, terms = criterion(replace(exact_prediction(target), matches=matches), target)
    base = terms_of(target, replace(true, pose=true.pose + 9), confidence=1.0)["confidence"]
    assert terms["confidence"].item() == pytest.approx(base + abs(math.log(factor)), abs=1e-3)
    (gradient,) = torch.autograd.grad(term, information, retain_graph=True)
    assert gradient[0, 1:].abs().max() == 0
    if factor != 1:
        assert (gradient[0, 0, 3, 3] * math.log(factor)).item() > 0
    assert torch.autograd.grad(term, pose, allow_unused=True)[0] is None


def test_a_pose_that_is_not_finite_teaches_nothing(target: Target):
    """Not even NaN: a gradient of 0 through what is infinite would be."""
    true = matches_from_truth(target, 50.0)
    pose = true.pose.clone()
    pose[0, 0, 0, 3], pose[0, 1, :3, :3] = float("inf"), float("nan")
    matches = replace(true, pose=pose.requires_grad_())
    criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, "alignment": 1.0, "confidence": 1.0})))
    total, _ = criterion(replace(exact_prediction(target), matches=matches), target)
    total.backward()
    assert total.isfinite()
    assert pose.grad.isfinite().all()
    assert pose.grad[0, :2].abs().max() == 0


def test_range_counts_meters_in_proportion(target: Target):
    criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, "range": 1.0})))
    prediction = exact_prediction(target)
    for factor in (0.8, 1.25):
        terms = criterion(replace(prediction, depth=factor * target.depth), target)[1]
        assert terms["range_avg"].item() == pytest.approx(abs(math.log(factor)), rel=1e-5)


def test_a_single_agent_teaches_nothing_about_pairs():
    alone = room(level_pose(0, 0, 0)[None, None])
    criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, "matching": 1.0, "alignment": 1.0})))
    prediction = exact_prediction(alone)
    scale = prediction.scale.requires_grad_()
    total = criterion(replace(prediction, scale=scale), alone)[0]
    total.backward()
    assert total.item() == 0.0
    assert scale.grad is not None


PAIR_TERMS = ("matching", "alignment", "covisibility", "confidence")


def measured(target: Target, matches: PairMatches | None) -> set[str]:
    criterion = Criterion(LossConfig(weights=LossWeights(**ONLY | dict.fromkeys((*PAIR_TERMS, "range"), 1.0))))
    terms = criterion(replace(exact_prediction(target), matches=matches), target)[1]
    return {name for name, is_measured in terms.measured.items() if is_measured} & {*PAIR_TERMS, "range_avg"}


def test_what_a_batch_has_no_pairs_for_is_not_measured(target: Target):
    true = matches_from_truth(target, 50.0)
    assert measured(target, true) == {*PAIR_TERMS, "range_avg"}
    assert measured(target, replace(true, degenerate=torch.ones_like(true.degenerate))) == {
        "matching",
        "covisibility",
        "confidence",
        "range_avg",
    }
    assert measured(target, None) == {"range_avg"}
    blind = replace(target, valid=torch.zeros_like(target.valid), depth=torch.zeros_like(target.depth))
    assert measured(blind, true) == {"alignment", "confidence"}  # poses are known without depth


def test_terms_of_pairs_keep_their_weight_where_an_agent_has_several_views(target: Target):
    """Three agents with every view twice: as before, beside losses that are summed over views."""
    matches = matches_from_truth(target, 3.0)

    def total(seen: Target, matches: PairMatches, **weights: float) -> float:
        criterion = Criterion(LossConfig(weights=LossWeights(**{**ONLY, **weights}))).train()
        prediction = exact_prediction(seen)
        return criterion(replace(prediction, depth=1.25 * seen.depth, matches=matches), seen)[0].item()

    twice = room(three_poses().repeat_interleave(2, dim=1))
    twice = replace(
        twice, agent=torch.tensor([[0, 0, 1, 1, 2, 2]]), views_per_agent=2, rig_pose=torch.eye(4).expand(1, 6, 4, 4)
    )
    cells = {"scores": torch.zeros(1, len(PAIRS), 2 * CELLS, 2 * CELLS), "unmatched": torch.zeros(1, 3, 2 * CELLS)}
    for weights in ({"covisibility": 1.0}, {"range": 1.0}, {"covisibility": 1.0, "range": 1.0}):
        expected = total(target, matches, **weights)
        assert expected > 0.1
        assert total(twice, replace(matches, **cells), **weights) == pytest.approx(expected, rel=1e-3)
