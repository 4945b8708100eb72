"""The matching head: what it changes, where it points, and what follows from descriptors that know the truth."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.config import ConfigError
from coopmap.config.loss import LossConfig, LossWeights
from coopmap.config.model import MatchingConfig
from coopmap.geometry.alignment import Alignment, align
from coopmap.geometry.cells import PARTS, at_centers, at_part_centers, cell_angle, compare, neighbors, take
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose, rotation_angle, transform_points
from coopmap.losses.cells import true_matches
from coopmap.losses.criterion import Criterion
from coopmap.metrics.pose import pair_errors, predicted_pose
from coopmap.models import MapAnything
from coopmap.models.addons.matching.cells import CellPoints, LinesOfSight, cell_points, features_of_cells
from coopmap.models.addons.matching.head import PACE
from coopmap.models.addons.matching.matches import Correspondences, assignment, between, correspond
from coopmap.models.addons.matching.poses import lengthened, pair_problem, tempered, with_aligned_poses
from coopmap.models.addons.matching.prior import combined, log_agreement, pair_priors
from coopmap.models.checkpoints import load_weights
from coopmap.types import Observation, PairMatches, Target

from ..rooms import exact_prediction, observation_of, panorama_rays, room, three_poses
from .support import load_config, make_observation
from .test_plucker import mosaic_observation

PATCH = 14
GRID = (4, 16)
CELLS = 64


@pytest.fixture
def target() -> Target:
    return room(three_poses())


def tiny(matching: bool, pose_from: str = "head", **keys: object) -> MapAnything:
    torch.manual_seed(0)
    changes = {"matching": {"enabled": matching, **keys}, "pose_from": pose_from}
    return MapAnything(load_config("mapanything_tiny", changes))


def test_with_poses_from_the_head_everything_else_is_as_without():
    """Also its weights, so that released ones load and runs compare."""
    observation = make_observation(2, 3, 28, 56)
    without, model = tiny(matching=False).eval()(observation), tiny(matching=True).eval()
    prediction = model(observation)
    for field in dataclasses.fields(without):
        if field.name != "matches":
            assert torch.equal(getattr(prediction, field.name), getattr(without, field.name)), field.name
    assert without.matches is None
    assert prediction.matches is not None
    assert prediction.matches.scores.shape == (2, 3, 8, 8)


def test_every_parameter_learns():
    model = tiny(matching=True, encoder=True, layers=[0, 1], dense=True).train()
    matches = model(make_observation(1, 3, 28, 56)).matches
    assert matches is not None
    terms = [matches.scores, matches.query, matches.keys, matches.unmatched, matches.range_sigma]
    terms += [matches.confidence_logit, matches.covisibility_logit, matches.information, matches.pose]
    sum(term.square().sum() for term in terms).backward()
    for name, parameter in model.matching.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("matching", [0.0, 1.0])
@pytest.mark.parametrize("agents", [1, 2])
def test_every_parameter_takes_part_in_every_step(agents: int, matching: float):
    """Also in those that teach it nothing: DDP waits for all gradients of all ranks."""
    model, target = tiny(matching=True, encoder=True, layers=[0, 1], dense=True), room(three_poses()[:, :agents])
    prediction = model.train()(observation_of(target))
    criterion = Criterion(LossConfig(weights=LossWeights(matching=matching))).train()
    criterion(prediction, target)[0].backward()
    for name, parameter in model.matching.named_parameters():
        assert parameter.grad is not None, name
    assert torch.equal(model.eval()(observation_of(target)).scale, prediction.scale)


@pytest.mark.parametrize("dense", [False, True])
def test_errors_of_aligned_poses_alone_teach_ranges_and_descriptors(target: Target, dense: bool):
    """Of a pose 0.3 m from where the matches put it, so that the pair is nearly right."""
    model, two = tiny(matching=True, dense=dense).train(), room(three_poses()[:, :2])
    images = torch.randn(1, 2, 3, 56, 224, generator=torch.Generator().manual_seed(0))
    prediction = model(dataclasses.replace(observation_of(two), images=images))
    assert prediction.matches is not None
    pose = torch.stack([torch.eye(4), prediction.matches.pose[0, 0].detach()])[None]
    pose[0, 1, 0, 3] += 0.3
    nothing = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)
    criterion = Criterion(LossConfig(weights=LossWeights(**(nothing | {"alignment": 1.0})))).train()
    total, _ = criterion(prediction, dataclasses.replace(two, pose=pose))
    assert total.item() == pytest.approx(math.log(1.3), abs=1e-3)
    total.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    of_ranges = {f"dpt_regressor_head.{layer}.weight" for layer in ("conv1", "conv2.0", "conv2.2")}
    of_ranges |= {"dpt_feature_head.scratch.layer1_rn.weight", "scale_head.output_proj.weight"}
    of_places = {f"matching.{layer}.weight" for layer in ("query", "keys", *(["feature_query"] if dense else []))}
    of_confidences = {f"matching.{layer}.weight" for layer in ("descriptor", "unmatched", "log_range_sigma")}
    taught = {name for name, gradient in gradients.items() if gradient.any()}
    assert of_ranges | of_places | of_confidences | {"matching.log_sharpness", "matching.log_lengthening"} <= taught
    assert not any(name.startswith(("pose_head.", "matching.confidence.")) for name in taught)


def test_features_of_cells_are_those_around_the_places_that_have_points():
    """Of maps that hold their own coordinates, in cells: the middle, and the four parts row by row."""
    rows, columns = 2, 3
    row, column = torch.meshgrid(*((torch.arange(8.0 * size) + 0.5) / 8 for size in (rows, columns)), indexing="ij")
    kept = features_of_cells(torch.stack([row, column]).repeat(4, 1, 1, 1))
    assert kept.shape == (4, rows * columns, 1 + PARTS**2, 2)
    cell = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    place = torch.tensor([[0.5, 0.5], [0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]])
    torch.testing.assert_close(kept[1], cell[:, None] + place)


def test_features_of_the_dense_head_move_places_within_cells_alone():
    """Which cells match is by tokens; where in them, by features too."""
    observation = make_observation(1, 3, 28, 56)
    without, model = tiny(matching=True).eval()(observation).matches, tiny(matching=True, dense=True).eval()
    matches = model(observation).matches
    assert without is not None
    assert matches is not None
    assert torch.equal(matches.scores, without.scores)
    assert torch.equal(matches.range_sigma, without.range_sigma)
    for one, other in ((matches.query, without.query), (matches.keys, without.keys)):
        assert one.shape == other.shape
        assert not torch.allclose(one, other, atol=1e-3)


def test_weights_from_before_precisions_and_lengths_were_learned_load():
    """Of runs, and as a start: standard deviations and lengths are then what matches say."""
    older, later = tiny(matching=True).state_dict(), ("log_precision", "log_odds", "log_lengthening")
    for name in later:
        del older[f"matching.{name}"]
    again, started = tiny(matching=True), tiny(matching=True)
    again.load_state_dict(older)
    assert not load_weights(started, older).mismatch
    for model in (again, started):
        assert all(getattr(model.matching, name).abs().max() == 0 for name in later)
    del older["matching.log_sharpness"]
    with pytest.raises(RuntimeError, match="log_sharpness"):
        again.load_state_dict(older)


def test_lengthening_is_of_translations_alone():
    model, observation = tiny(matching=True).eval(), make_observation(1, 3, 28, 56)
    before = model(observation).matches
    with torch.no_grad():
        model.matching.log_lengthening[-1] += math.log(1.1)
    after = model(observation).matches
    assert before is not None
    assert after is not None
    assert torch.equal(before.lengthening, torch.ones(1, 3))
    torch.testing.assert_close(after.lengthening, torch.full((1, 3), 1.1))
    longer = before.pose.clone()
    longer[..., :3, 3] *= 1.1
    torch.testing.assert_close(after.pose, longer)
    known = ~before.degenerate
    torch.testing.assert_close(after.sigma[known], before.sigma[known] * torch.tensor([1, 1, 1, 1.1, 1.1, 1.1]))
    assert torch.equal(after.confidence_logit, before.confidence_logit)


def test_poses_that_are_too_short_teach_their_lengthening(target: Target):
    model, true = tiny(matching=True).train(), true_matches(target, CELLS, 0.4).pose
    found = model(observation_of(target)).matches
    assert found is not None
    short = true.clone()
    short[..., :3, 3] *= 0.9
    aligned = Alignment(short, *(torch.zeros(1, 3, *shape) for shape in ((1,), (6, 6), (), ())))
    pose = lengthened(aligned, found.lengthening).pose
    matches = dataclasses.replace(found, pose=pose, degenerate=torch.zeros(1, 3, dtype=torch.bool))
    criterion = Criterion(LossConfig(weights=LossWeights(alignment=1.0))).train()
    criterion(dataclasses.replace(exact_prediction(target), matches=matches), target)[0].backward()
    assert model.matching.log_lengthening.grad[-1] < 0


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.6, 1.6), seed=st.integers(0, 99))
def test_a_problem_in_other_units_has_the_lengthened_alignment(factor: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    world = 8 * torch.randn(1, 1, 40, 3, dtype=torch.float64, generator=generator)
    pose = three_poses()[:, 1:2].double()
    other = transform_points(torch.linalg.inv(pose), world)
    noisy = [points + 0.02 * torch.randn(points.shape, generator=generator) for points in (world, other)]
    nothing = torch.zeros(1, 1, 40, 2, dtype=torch.int64)
    found = Correspondences(nothing, noisy[0], noisy[1], torch.ones(1, 1, 40))
    starts = 0.3 * torch.randn(1, 2, CELLS, 3, dtype=torch.float64, generator=generator)
    lines = LinesOfSight(starts, from_center=False)
    problem = pair_problem(found, torch.full((1, 2, CELLS), 0.1), torch.tensor(0.1), 3.0, lines)
    by = torch.full((1, 1), factor, dtype=torch.float64)
    expected, measured = lengthened(align(*problem), by), align(*problem.lengthened(by))
    torch.testing.assert_close(measured.pose, expected.pose, atol=1e-5, rtol=1e-5)
    largest = expected.information.abs().max()
    torch.testing.assert_close(measured.information / largest, expected.information / largest, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(measured.inlier, expected.inlier, atol=1e-4, rtol=1e-4)


def test_precision_scales_the_information_of_all_axes_alike():
    model, observation = tiny(matching=True).eval(), make_observation(1, 3, 28, 56)
    before = model(observation).matches
    with torch.no_grad():
        model.matching.log_precision[-1] += math.log(9) / PACE
    after = model(observation).matches
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after.information, 9 * before.information)
    known = ~before.degenerate
    torch.testing.assert_close(after.sigma[known], before.sigma[known] / 3)
    assert torch.equal(after.pose, before.pose)
    assert torch.equal(after.confidence_logit, before.confidence_logit)


def test_a_single_agent_has_no_matches():
    prediction = tiny(matching=True, pose_from="alignment").eval()(make_observation(2, 1, 28, 56))
    assert prediction.matches is None
    assert prediction.pose_trans.isfinite().all()


def test_agents_in_another_order_match_the_same():
    """All agents but the first are interchangeable: pair (0, 1) becomes (0, 2), and (1, 2) is turned around."""
    model = tiny(matching=True).eval()
    observation = make_observation(1, 3, 28, 56)
    swapped = observation.map(lambda value: value[:, [0, 2, 1]])
    one, other = model(observation).matches, model(swapped).matches
    assert one is not None
    assert other is not None
    assert torch.allclose(one.scores[:, 0], other.scores[:, 1], atol=1e-5)
    assert torch.allclose(one.scores[:, 2], other.scores[:, 2].mT, atol=1e-5)
    assert torch.allclose(one.unmatched[:, [0, 2, 1]], other.unmatched, atol=1e-5)


def test_probabilities_and_the_bin():
    scores, unmatched = torch.randn(1, 3, 5, 5), torch.randn(1, 3, 5)
    rows, columns = assignment(scores, unmatched)
    assert torch.allclose(rows.exp().sum(dim=-1), torch.ones(1, 3, 5))
    assert torch.allclose(columns.exp().sum(dim=-1), torch.ones(1, 3, 5))
    sure = torch.full_like(unmatched, 50.0)
    assert assignment(scores, sure)[0][..., -1].exp().min() > 0.999


def oracle(target: Target, sharpness: float = 40.0):
    """Scores and descriptors of parts that know the true matches, with exact points."""
    found = true_matches(target, CELLS, 0.4)
    scores = torch.full((1, 3, CELLS, CELLS), -sharpness)
    cell = found.part[0].div(PARTS**2, rounding_mode="floor")
    scores.scatter_(3, cell[..., None], torch.where(found.matched[0], sharpness, -sharpness)[..., None])
    # descriptors of places in the world: the inner product of unit-length random features of nearby places is larger
    world = target.pose[0]
    points = cell_points(exact_prediction(target), observation_of(target), PATCH, "calibrated")
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.randn(3, 256, generator=generator)
    phases = 2 * math.pi * torch.rand(256, generator=generator)

    def describe(at: torch.Tensor) -> torch.Tensor:
        moved = transform_points(world, at[0].flatten(1, -2)).view(at.shape)
        return (moved @ frequencies + phases).cos() / 128**0.5

    return scores, torch.zeros(1, 3, CELLS), sharpness * describe(points.center), describe(points.parts), points


def test_true_matches_and_exact_points_give_the_poses(target: Target):
    """Within what parts of 11 degrees leave over."""
    scores, unmatched, query, keys, points = oracle(target)
    rows, columns = assignment(scores, unmatched)
    found = correspond(rows, columns, query, keys, points, torch.ones(1, 3, CELLS), GRID, 128)
    true = true_matches(target, CELLS, 0.4).pose
    observation = observation_of(target)
    aligned = align(*pair_problem(found, torch.full((1, 3, CELLS), 0.1), cell_angle(observation.rays, PATCH), 3.0))
    assert not aligned.degenerate.any()
    assert (aligned.pose[..., :3, 3] - true[..., :3, 3]).norm(dim=-1).max() < 1.0
    assert torch.rad2deg(rotation_angle(aligned.pose[..., :3, :3].mT @ true[..., :3, :3])).max() < 4.0


def test_as_many_matches_are_kept_as_poses_need(target: Target):
    with pytest.raises(ConfigError, match="at least 16"):
        MatchingConfig(max_matches=15)
    scores, unmatched, query, keys, points = oracle(target)
    rows, columns = assignment(scores, unmatched)
    found = correspond(rows, columns, query, keys, points, torch.ones(1, 3, CELLS), GRID, 16)
    aligned = align(*pair_problem(found, torch.full((1, 3, CELLS), 0.05), cell_angle(target.rays, PATCH), 3.0))
    assert not aligned.degenerate.any()


def test_the_same_cells_and_points_give_the_pose_exactly(target: Target):
    """Matches without any error of place: each agent's points are the other's, moved."""
    true = true_matches(target, CELLS, 0.4).pose
    points = exact_prediction(target).points_view[:, 0, 7::14, 7::14].flatten(1, 2)
    for pair in range(2):  # (0, 1), (0, 2)
        moved = transform_points(torch.linalg.inv(true[:, pair]), points)
        cells = CellPoints(torch.stack([points, moved], dim=1), torch.stack([points, moved], dim=1)[:, :, :, None])
        eye = torch.full((1, 1, CELLS, CELLS), -40.0)
        eye[0, 0].fill_diagonal_(40.0)
        rows, columns = assignment(eye, torch.zeros(1, 2, CELLS))
        keys = torch.nn.functional.one_hot(torch.arange(CELLS), CELLS).float().expand(1, 2, -1, -1)
        found = correspond(rows, columns, 99 * keys, keys[:, :, :, None], cells, torch.ones(1, 2, CELLS), GRID, 128)
        aligned = align(*pair_problem(found, torch.full((1, 2, CELLS), 0.1), torch.tensor(0.1), 3.0))
        assert torch.allclose(aligned.pose[0, 0], true[0, pair], atol=2e-4)


def pair_matches(pose: torch.Tensor, confidence: float, degenerate: bool = False) -> PairMatches:
    pairs = pose.shape[1]
    nothing = torch.zeros(1, pairs, 1)
    return PairMatches(
        scores=torch.zeros(1, pairs, 1, 1),
        unmatched=torch.zeros(1, 3, 1),
        query=torch.zeros(1, 3, 1, 1),
        keys=torch.zeros(1, 3, 1, 1, 1),
        range_sigma=torch.ones(1, 3, 1),
        pose=pose,
        lengthening=torch.ones(1, pairs),
        information=torch.eye(6).expand(1, pairs, 6, 6),
        degenerate=torch.full((1, pairs), degenerate),
        confidence_logit=torch.full((1, pairs), confidence),
        covisibility_logit=nothing[..., 0],
        matched=torch.zeros(1, pairs, 1, 2, dtype=torch.int64),
        weight=nothing,
        inlier=nothing,
    )


@pytest.mark.parametrize("source", ["alignment", "both"])
def test_pairs_become_one_pose_per_view(target: Target, source: str):
    true = true_matches(target, CELLS, 0.4).pose
    matches = pair_matches(true, confidence=9.0)
    prediction = dataclasses.replace(exact_prediction(target), matches=matches)
    answer = with_aligned_poses(prediction, observation_of(target), 1, source)
    pose = pose_from_quat_trans(answer.pose_quat, answer.pose_trans)
    assert torch.allclose(pose, relative_pose(target.pose[:, :1], target.pose), atol=1e-3)


def test_a_sure_pair_is_not_drawn_by_unsure_ones():
    """Of four agents: one pair is right and surer, the others are ten meters off, each in a direction of its own."""
    generator = torch.Generator().manual_seed(0)
    true = torch.eye(4).repeat(1, 4, 1, 1)
    true[0, :, :3, 3] = 10 * torch.randn(4, 3, generator=generator)
    first, second = torch.triu_indices(4, 4, offset=1)
    relative = relative_pose(true[:, first], true[:, second])
    measured = relative.clone()
    measured[0, 1:, :3, 3] += 10 * torch.nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=-1)
    matches = pair_matches(measured, confidence=-0.5)
    matches = dataclasses.replace(matches, confidence_logit=torch.tensor([[1.0, -0.5, -0.5, -0.5, -0.5, -0.5]]))
    prediction = dataclasses.replace(exact_prediction(room(true)), matches=matches)
    answer = with_aligned_poses(prediction, observation_of(room(true)), 1, "alignment")
    assert (answer.pose_trans[0, 1] - relative[0, 0, :3, 3]).norm() < 0.5


def test_degenerate_pairs_leave_the_regressed_poses(target: Target):
    true = true_matches(target, CELLS, 0.4).pose
    regressed = torch.tensor([[[0.0, 0, 0], [1, 2, 3], [4, 5, 6]]])
    prediction = dataclasses.replace(
        exact_prediction(target), pose_trans=regressed, matches=pair_matches(true, 9.0, degenerate=True)
    )
    answer = with_aligned_poses(prediction, observation_of(target), 1, "alignment")
    assert torch.allclose(answer.pose_trans, regressed)


def test_quaternions_of_either_sign_are_one_pose(target: Target):
    """Regressed ones that are averaged in and kept, and the answers': the same poses and errors."""
    true = true_matches(target, CELLS, 0.4).pose
    quat = torch.nn.functional.normalize(torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    trans = torch.tensor([[[0.0, 0, 0], [1, 2, 3], [4, 5, 6]]])
    matches = pair_matches(true, confidence=0.0)
    matches = dataclasses.replace(matches, degenerate=torch.tensor([[False, True, True]]))
    for source in ("alignment", "both"):
        answers = []
        for sign in (1, torch.tensor([1.0, -1, -1])[:, None], -1):
            regressed = {"pose_quat": sign * quat, "pose_trans": trans}
            prediction = dataclasses.replace(exact_prediction(target), matches=matches, **regressed)
            answers.append(with_aligned_poses(prediction, observation_of(target), 1, source))
        for answer in (*answers[1:], dataclasses.replace(answers[0], pose_quat=-answers[0].pose_quat)):
            poses = [pose_from_quat_trans(each.pose_quat, each.pose_trans) for each in (answers[0], answer)]
            torch.testing.assert_close(poses[1], poses[0], atol=1e-5, rtol=1e-5)
            errors = [pair_errors(predicted_pose(each), target.pose) for each in (answers[0], answer)]
            for name in ("trans_m", "rot_deg", "direction_deg"):
                torch.testing.assert_close(errors[1][name], errors[0][name], atol=1e-2, rtol=1e-3, msg=name)


def test_points_of_a_mosaic_lie_on_its_lines_of_sight_at_the_predicted_distance():
    observation = mosaic_observation(views=2, rows=2, columns=8)
    depth = 2.0 + 30 * torch.rand(observation.rays.shape[:-1])
    flags = torch.ones(1, dtype=torch.bool)
    known = torch.ones_like(depth, dtype=torch.bool)
    target = Target(observation.rays, depth, known, known, torch.eye(4).expand(1, 2, 4, 4), flags, flags)
    observation = dataclasses.replace(observation, camera_pose=0.3 * observation.camera_pose)
    points = cell_points(exact_prediction(target), observation, PATCH, "calibrated")
    for at, pick in ((points.center, at_centers), (points.parts, at_part_centers)):
        assert torch.allclose(at.norm(dim=-1), pick(depth, PATCH), rtol=1e-4)
    starts = observation.camera_pose[:, :, [1, 0, 3, 2], :3, 3].repeat_interleave(2, dim=2).repeat(1, 1, 2, 1)
    ahead = torch.nn.functional.normalize(points.center - starts, dim=-1)
    assert torch.allclose(ahead, at_centers(observation.rays, PATCH), atol=1e-5)


def test_calibrated_and_predicted_rays(target: Target):
    prediction, observation = exact_prediction(target), observation_of(target)
    turned = dataclasses.replace(prediction, points_view=-prediction.points_view)
    calibrated, predicted = (cell_points(turned, observation, PATCH, rays) for rays in ("calibrated", "predicted"))
    assert torch.allclose(calibrated.center, -predicted.center, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(0.5, 2.0), st.integers(0, 8))
def test_between_places_on_one_surface_and_not_across_an_edge(azimuth: float, scale: float, far: int):
    """Nine places with equal logits, one of them 4 times as far away: the mean leaves it out, or is there alone."""
    angle = azimuth + 0.02 * torch.arange(9)
    ranges = torch.full((9,), 10 * scale)
    ranges[far] *= 4
    points = torch.stack([angle.sin(), torch.zeros(9), angle.cos()], dim=-1) * ranges[:, None]
    logits = torch.zeros(9)
    near = between(logits + 5.0 * (torch.arange(9) == (far + 1) % 9), points)
    assert near.norm().item() == pytest.approx(10 * scale, rel=1e-4)
    assert between(logits + 5.0 * (torch.arange(9) == far), points).norm().item() == pytest.approx(40 * scale, rel=1e-4)


@pytest.mark.parametrize("row", range(4))
def test_a_match_between_two_rows_is_found_there_at_the_edges_too(row: int):
    """Descriptors fall with the distance from the border to the next row inside, at the center of a column."""
    parts = at_part_centers(panorama_rays(56, 224)[None, None], PATCH)
    border = math.pi / 2 * (0.5 - max(row, row + 1 if row < 2 else row - 1) / 4)
    azimuth = 2 * math.pi * (5.5 / 16 - 0.5)
    off = (-parts[..., 1].asin() - border).square() + (torch.atan2(parts[..., 0], parts[..., 2]) - azimuth).square()
    around = neighbors(torch.tensor([[[16 * row + 5]]]), GRID)
    logits = compare(torch.ones(1, 1, 1, 1), -100 * off[..., None], around)
    found = between(logits, take(parts, around).flatten(3, 4))
    assert -found[..., 1].asin().item() == pytest.approx(border, abs=0.02 * math.pi / 8)


def test_images_and_calibrated_rays_suffice():
    observation = make_observation(1, 2, 28, 56)
    bare = Observation(images=observation.images, rays=observation.rays)
    assert tiny(matching=True, pose_from="alignment").eval()(bare).pose_trans.isfinite().all()


def with_prior(target: Target, off_m: float, sigma: tuple[float, float]) -> Observation:
    """Exact poses in a world frame of their own, the second agent's moved by some meters along x."""
    prior = target.pose.clone()
    prior[:, 1, 0, 3] += off_m
    spread = torch.tensor(sigma).expand(1, 3, 2)
    return dataclasses.replace(observation_of(target), pose_prior=prior, pose_sigma=spread)


def test_a_prior_is_the_pose_where_nothing_matches(target: Target):
    priors = pair_priors(with_prior(target, 0.0, (1.0, 0.1)), 1)
    assert priors is not None
    true = true_matches(target, CELLS, 0.4).pose
    nothing = Alignment(
        torch.eye(4).expand(1, 3, 4, 4), torch.zeros(1, 3, 1), torch.zeros(1, 3, 6, 6), torch.ones(1, 3).bool(), None
    )
    assert torch.allclose(combined(nothing, priors, torch.ones(1, 3), 0.05), true, atol=1e-5)


def test_prior_and_images_count_by_what_they_know(target: Target):
    """Both with 1 m along every axis: half way. A prior of 1 cm is kept; one of 100 m has no influence."""
    true = true_matches(target, CELLS, 0.4).pose
    information = torch.eye(6).expand(1, 3, 6, 6) * 1.0
    aligned = Alignment(true, torch.ones(1, 3, 1), information, torch.zeros(1, 3).bool(), None)
    for sigma, share in ((1 / 2**0.5, 0.5), (0.0, 1.0), (100.0, 0.0)):
        priors = pair_priors(with_prior(target, 2.0, (sigma, 0.0)), 1)
        assert priors is not None
        moved = combined(aligned, priors, torch.ones(1, 3), 1.0)
        expected = true[..., :3, 3] + share * (priors.pose[..., :3, 3].float() - true[..., :3, 3])
        assert torch.allclose(moved[..., :3, 3], expected, atol=0.02)


def test_confidence_is_taught_of_the_matches_alone_and_the_answer_has_the_prior(target: Target):
    """An untrained head's matches are wrong, priors are exact."""
    torch.manual_seed(0)
    changes = {"matching": {"enabled": True, "prior": True}, "inputs": {"pose": True}, "pose_from": "alignment"}
    prediction = MapAnything(load_config("mapanything_tiny", changes)).eval()(with_prior(target, 0.0, (0.0, 0.0)))
    matches = prediction.matches
    assert matches is not None
    true = true_matches(target, CELLS, 0.4).pose
    assert ((matches.pose - true)[..., :3, 3].norm(dim=-1) > 3).all()
    criterion, losses = Criterion(LossConfig(weights=LossWeights(confidence=1.0))), []
    for logit in (-20.0, 20.0):
        expecting = dataclasses.replace(matches, confidence_logit=torch.full((1, 3), logit))
        losses.append(criterion(dataclasses.replace(prediction, matches=expecting), target)[1]["confidence"].item())
    assert losses[1] == pytest.approx(losses[0] + 20)
    answer = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
    assert torch.allclose(answer, relative_pose(target.pose[:, :1], target.pose), atol=1e-2)  # priors count as 1 cm


def test_a_prior_links_agents_that_no_matches_link(target: Target):
    """The second to the first; the third, of which neither is known, keeps the regressed pose."""
    true = true_matches(target, CELLS, 0.4).pose
    matches = dataclasses.replace(
        pair_matches(torch.eye(4).expand_as(true), confidence=-1.0, degenerate=True),
        combined=true,
        prior_known=torch.tensor([[True, False, False]]),
    )
    assert torch.allclose(matches.support, torch.tensor([[1.0, 1 / (1 + math.e), 0.0]]))
    prediction = dataclasses.replace(exact_prediction(target), matches=matches)
    answer = with_aligned_poses(prediction, observation_of(target), 1, "alignment")
    assert torch.allclose(answer.pose_trans[:, 1], true[:, 0, :3, 3], atol=1e-4)
    assert torch.equal(answer.pose_trans[:, 2], prediction.pose_trans[:, 2])


def test_matches_that_contradict_a_prior_are_unlikely(target: Target):
    points = cell_points(exact_prediction(target), observation_of(target), PATCH, "calibrated").center
    priors = pair_priors(with_prior(target, 0.0, (0.5, 0.0)), 1)
    assert priors is not None
    agreement = log_agreement(priors, points, torch.full((1, 3, CELLS), 0.02))
    found = true_matches(target, CELLS, 0.4)
    cell = found.part[0].div(PARTS**2, rounding_mode="floor")
    matched = agreement.gather(3, cell[..., None])[..., 0][found.matched[0]]
    assert matched.median() > agreement.median() + 2
    unknown = dataclasses.replace(with_prior(target, 0.0, (0.5, 0.0)), pose_given=torch.zeros(1, 3, dtype=torch.bool))
    without = pair_priors(unknown, 1)
    assert without is not None
    assert not log_agreement(without, points, torch.full((1, 3, CELLS), 0.02)).any()


def test_what_stands_where_no_prior_is_given_reaches_no_gradient(target: Target):
    points = cell_points(exact_prediction(target), observation_of(target), PATCH, "calibrated").center
    points.requires_grad_()
    given = with_prior(target, math.nan, (0.5, 0.0))
    given = dataclasses.replace(given, pose_given=torch.tensor([[True, False, True]]))
    agreement = log_agreement(pair_priors(given, 1), points, torch.full((1, 3, CELLS), 0.02))
    assert agreement is not None
    assert (agreement.flatten(2).any(dim=2) == torch.tensor([[False, True, False]])).all()
    agreement.sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_tempered_weights_keep_their_sum_their_order_and_zeros(weights: list[float], scale: float):
    weight = torch.tensor(weights, dtype=torch.float64)
    found = tempered(weight)
    assert found.sum().item() == pytest.approx(weight.sum().item(), abs=1e-7)
    assert ((found == 0) == (weight == 0)).all()
    assert (found[weight.argsort()].diff() >= 0).all()
    sound = weight[weight > 1e-4]
    if len(sound) > 1:
        assert torch.allclose(tempered(scale * sound), scale * tempered(sound))
        assert torch.allclose((tempered(sound) / tempered(sound)[0]).square(), sound / sound[0])


def test_tempered_weights_have_gradients_at_zero():
    weight = torch.tensor([0.0, 0.25, 1.0], requires_grad=True)
    tempered(weight)[1].backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_the_bundle_of_all_pairs_corrects_a_pair(target: Target):
    """One pair's pose is off by a meter; the matches of all are exact, and so is the answer."""
    true = true_matches(target, CELLS, 0.4).pose
    first, second = torch.triu_indices(3, 3, offset=1)
    world = 5 * torch.randn(1, 3, 40, 3, generator=torch.Generator().manual_seed(0))
    points = [transform_points(torch.linalg.inv(target.pose[:, end]), world) for end in (first, second)]
    nothing = torch.zeros(1, 3, 40, 2, dtype=torch.int64)
    found = Correspondences(nothing, points[0], points[1], torch.ones(1, 3, 40))
    problem = pair_problem(found, torch.full((1, 3, CELLS), 0.1), torch.tensor(0.1), 3.0)
    wrong = true.clone()
    wrong[:, 0, 0, 3] += 1.0
    prediction = dataclasses.replace(exact_prediction(target), matches=pair_matches(wrong, confidence=0.0))
    expected = relative_pose(target.pose[:, :1], target.pose)
    off = {}
    for name, given_matches in (("averaged", None), ("bundle", problem)):
        answer = with_aligned_poses(prediction, observation_of(target), 1, "alignment", given_matches)
        pose = pose_from_quat_trans(answer.pose_quat, answer.pose_trans)
        off[name] = (pose - expected)[..., :3, 3].norm(dim=-1).max()
    assert off["averaged"] > 0.1
    assert off["bundle"] < 1e-3


def test_where_pairs_determine_nothing_the_bundle_leaves_the_regressed_poses(target: Target):
    true = true_matches(target, CELLS, 0.4).pose
    regressed = torch.tensor([[[0.0, 0, 0], [1, 2, 3], [4, 5, 6]]])
    prediction = dataclasses.replace(
        exact_prediction(target), pose_trans=regressed, matches=pair_matches(true, 9.0, degenerate=True)
    )
    nothing = Correspondences(
        torch.zeros(1, 3, 5, 2, dtype=torch.int64), torch.ones(1, 3, 5, 3), torch.ones(1, 3, 5, 3), torch.zeros(1, 3, 5)
    )
    problem = pair_problem(nothing, torch.full((1, 3, CELLS), 0.1), torch.tensor(0.1), 3.0)
    answer = with_aligned_poses(prediction, observation_of(target), 1, "alignment", problem)
    assert torch.allclose(answer.pose_trans, regressed)
