"""What the objective must not depend on."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.config.loss import LossConfig, LossWeights
from coopmap.geometry import pose_from_quat_trans
from coopmap.losses import Criterion
from coopmap.losses.normals import MIN_ANGLE, QUADRATIC_BELOW
from coopmap.types import Prediction, truth_in_view0

SEEDS = st.integers(0, 2**31)
CONFIGS = [LossConfig(pose_terms=pose_terms) for pose_terms in ("absolute", "pairwise", "both")]
EVERY_TERM, RELATIVE = "every term", "relative"
IN_METERS = ("scale", "rig", "height")
"""Terms in meters: the metric scale of the prediction matters to them."""
few_examples = settings(max_examples=4, deadline=None)


@pytest.fixture(
    scope="session", params=[*CONFIGS, EVERY_TERM, RELATIVE], ids=lambda cfg: getattr(cfg, "pose_terms", cfg)
)
def case(request, make_scene, make_full_scene, every_term, load):
    """Settings, and the scenes that go with them."""
    if request.param == EVERY_TERM:
        return every_term(), make_full_scene
    if request.param == RELATIVE:
        return load("relative"), make_full_scene
    return request.param, make_scene


def score(criterion, prediction, target):
    """Total and terms beside a teacher that finds everything a tenth larger."""
    teacher = replace(prediction, scale=1.1 * prediction.scale) if criterion.cfg.weights.scale_distillation else None
    return criterion(prediction, target, teacher)


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=1e-5)


def rename_views(terms, order):
    """Terms of views in a new order: position ``k`` holds what was at ``order[k]``."""
    renamed = dict(terms)
    for name in terms:
        stem, found, view = name.rpartition("_view")
        if found:
            renamed[name] = terms[f"{stem}_view{order[int(view) - 1] + 1}"]
    return renamed


@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS, shift=st.floats(-500, 500))
def test_a_rigid_motion_of_the_world_changes_nothing(case, training, seed, shift):
    cfg, scene = case
    prediction, target = scene(seed)
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=-1)
    motion = pose_from_quat_trans(quat.double(), torch.tensor([shift, -shift, 0.1 * shift], dtype=torch.float64))
    moved = replace(target, pose=(motion @ target.pose.double()).float())
    criterion = Criterion(cfg).train(training)
    assert_same(score(criterion, prediction, moved)[1], score(criterion, prediction, target)[1])


@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_scaling_truth_and_raw_prediction_changes_only_terms_in_meters(case, training, seed, factor):
    cfg, scene = case
    prediction, target = scene(seed)
    pose = target.pose.clone()
    pose[..., :3, 3] *= factor
    scaled_target = replace(target, depth=target.depth * factor, pose=pose)
    lengths = ("depth", "pose_trans", "points_view", "points_world")
    scaled = replace(prediction, **{name: getattr(prediction, name) * factor for name in lengths})
    criterion = Criterion(cfg).train(training)
    total, terms = score(criterion, prediction, target)
    scaled_total, scaled_terms = score(criterion, scaled, scaled_target)
    unitless, scaled_unitless = without_terms_in_meters(terms), without_terms_in_meters(scaled_terms)
    assert_same(scaled_unitless, unitless)
    summed, scaled_summed = (
        sum(value for name, value in each.items() if name.startswith(IN_METERS) and not name.endswith("_avg"))
        - each.get("scale_distillation", 0)
        for each in (terms, scaled_terms)
    )
    view_scaling = 2 / target.depth.shape[1] if training else 1.0
    difference = view_scaling * (scaled_summed - summed)
    torch.testing.assert_close(scaled_total - total, difference, rtol=1e-3, atol=2e-3)


def without_terms_in_meters(terms):
    names = {name for name in terms if name.startswith(IN_METERS) and name != "scale_distillation"}
    return {name: value for name, value in terms.items() if name not in names}


@few_examples
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_the_metric_scale_of_the_prediction_changes_only_terms_in_meters(case, seed, factor):
    cfg, scene = case
    prediction, target = scene(seed)
    lengths = ("depth", "pose_trans", "points_view", "points_world", "scale")
    scaled = replace(prediction, **{name: getattr(prediction, name) * factor for name in lengths})
    criterion = Criterion(cfg)
    terms, scaled_terms = score(criterion, prediction, target)[1], score(criterion, scaled, target)[1]
    assert_same(without_terms_in_meters(scaled_terms), without_terms_in_meters(terms))


@few_examples
@given(seed=SEEDS, tail=st.permutations([1, 2, 3]))
def test_permuting_the_other_views_permutes_the_terms(case, seed, tail):
    cfg, scene = case
    prediction, target = scene(seed, views=4)
    order = [0, *tail]

    def permute(record):
        return record.map(lambda tensor: tensor[:, order] if tensor.ndim > 1 else tensor)

    criterion = Criterion(cfg)
    total, terms = score(criterion, prediction, target)
    permuted_total, permuted_terms = score(criterion, permute(prediction), permute(target))
    torch.testing.assert_close(permuted_total, total, rtol=1e-5, atol=0)
    assert_same(permuted_terms, rename_views(terms, order))


@few_examples
@given(seed=SEEDS, signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_q_and_minus_q_are_the_same_rotation(case, seed, signs):
    cfg, scene = case
    prediction, target = scene(seed, views=3)
    flipped = replace(prediction, pose_quat=prediction.pose_quat * torch.tensor(signs)[:, None])
    criterion = Criterion(cfg)
    assert_same(score(criterion, flipped, target)[1], score(criterion, prediction, target)[1])


@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS)
def test_a_perfect_prediction_scores_zero(case, training, seed):
    cfg, scene = case
    _, target = scene(seed)
    if target.rig_pose is not None:
        target = calibrated(target)
    truth = truth_in_view0(target)
    perfect = Prediction(
        rays=truth.rays,
        depth=truth.depth,
        pose_trans=truth.trans,
        pose_quat=truth.quat,
        scale=torch.full_like(target.depth[:, 0, 0, 0], 7.0),
        confidence=torch.ones_like(truth.depth),
        mask_logits=torch.where(target.non_ambiguous, 50.0, -50.0),
        points_view=truth.points_view,
        points_world=truth.points_world,
    )
    total, terms = Criterion(cfg).train(training)(perfect, target, teacher=perfect)
    normal = {name: value for name, value in terms.items() if name.startswith("normal_view")}
    others = {name: value for name, value in terms.items() if not name.startswith("normal")}
    torch.testing.assert_close(others, {name: torch.tensor(0.0) for name in others}, rtol=0, atol=1e-5)
    # Angles are clamped to at least a degree, so normals keep a floor; a patch has at most four corners.
    floor = cfg.weights.normal * 0.5 * MIN_ANGLE**2 / QUADRATIC_BELOW / target.depth.shape[-1]
    assert all(0 < value <= 1.01 * floor for value in normal.values())
    assert total < 3 * 1.01 * floor + 1e-4


def calibrated(target):
    """Cars 40 m apart with each camera where its rig has it; points of unknown depth lie in the camera."""
    upright = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(*target.agent.shape, 4)
    car = pose_from_quat_trans(upright, 40.0 * target.agent[..., None] * torch.tensor([1.0, 0.0, 0.0]))
    return replace(target, pose=car @ target.rig_pose, depth=target.depth * target.valid)


def test_weight_zero_leaves_a_term_out(make_scene):
    prediction, target = make_scene(0)
    cfg = LossConfig(weights=LossWeights(*[0.0] * len(fields(LossWeights))))
    cfg.weights.pose_trans = 2.0
    total, terms = Criterion(cfg)(prediction, target)
    assert set(terms) == {"pose_trans_view1", "pose_trans_view2", "pose_trans_view3", "pose_trans_avg"}
    views = sum(terms[f"pose_trans_view{view}"] for view in (1, 2, 3))
    torch.testing.assert_close(total, views * 2 / 3)


def test_view_scaling_touches_only_training_totals_of_more_than_two_views(make_scene):
    plain, scaled = Criterion(LossConfig(view_scaling=False)), Criterion(LossConfig(view_scaling=True))
    for views, factor in ((2, 1.0), (3, 2 / 3), (5, 2 / 5)):
        scene = make_scene(0, views=views)
        torch.testing.assert_close(scaled(*scene)[0], plain(*scene)[0] * factor)
        assert scaled.eval()(*scene)[0] == plain.eval()(*scene)[0]
        plain.train(), scaled.train()
