"""What the objective must not depend on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.config.loss import LossConfig, LossWeights
from coopmap.geometry import pose_from_quat_trans
from coopmap.losses import Criterion
from coopmap.losses.normalised import truth_in_view0
from coopmap.losses.surface import MIN_ANGLE, QUADRATIC_BELOW
from coopmap.types import Prediction

SEEDS = st.integers(0, 2**31)
CONFIGS = [LossConfig(pose_terms=pose_terms) for pose_terms in ("absolute", "pairwise", "both")]
few_examples = settings(max_examples=8, deadline=None)


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


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.pose_terms)
@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS, shift=st.floats(-500, 500))
def test_a_rigid_motion_of_the_world_changes_nothing(make_scene, cfg, training, seed, shift):
    prediction, target = make_scene(seed)
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=-1)
    motion = pose_from_quat_trans(quat.double(), torch.tensor([shift, -shift, 0.1 * shift], dtype=torch.float64))
    moved = replace(target, pose=(motion @ target.pose.double()).float())
    criterion = Criterion(cfg).train(training)
    assert_same(criterion(prediction, moved)[1], criterion(prediction, target)[1])


@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_scaling_truth_and_raw_prediction_changes_only_the_scale_term(make_scene, training, seed, factor):
    prediction, target = make_scene(seed)
    pose = target.pose.clone()
    pose[..., :3, 3] *= factor
    scaled_target = replace(target, depth=target.depth * factor, pose=pose)
    lengths = ("depth", "pose_trans", "points_view", "points_world")
    scaled = replace(prediction, **{name: getattr(prediction, name) * factor for name in lengths})
    criterion = Criterion(LossConfig(pose_terms="both")).train(training)
    total, terms = criterion(prediction, target)
    scaled_total, scaled_terms = criterion(scaled, scaled_target)
    scale, scaled_scale = terms.pop("scale"), scaled_terms.pop("scale")
    assert_same(scaled_terms, terms)
    view_scaling = 2 / 3 if training else 1.0
    difference = view_scaling * (scaled_scale - scale)
    torch.testing.assert_close(scaled_total - total, difference, rtol=1e-3, atol=2e-3)


@few_examples
@given(seed=SEEDS, factor=st.floats(0.1, 10))
def test_the_metric_scale_of_the_prediction_changes_only_the_scale_term(make_scene, seed, factor):
    prediction, target = make_scene(seed)
    lengths = ("depth", "pose_trans", "points_view", "points_world", "scale")
    scaled = replace(prediction, **{name: getattr(prediction, name) * factor for name in lengths})
    criterion = Criterion(LossConfig(pose_terms="both")).eval()
    terms, scaled_terms = criterion(prediction, target)[1], criterion(scaled, target)[1]
    terms.pop("scale"), scaled_terms.pop("scale")
    assert_same(scaled_terms, terms)


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.pose_terms)
@few_examples
@given(seed=SEEDS, tail=st.permutations([1, 2, 3]))
def test_permuting_the_other_views_permutes_the_terms(make_scene, cfg, seed, tail):
    prediction, target = make_scene(seed, views=4)
    order = [0, *tail]

    def permute(record):
        return record.map(lambda tensor: tensor[:, order] if tensor.ndim > 1 else tensor)

    criterion = Criterion(cfg)
    total, terms = criterion(prediction, target)
    permuted_total, permuted_terms = criterion(permute(prediction), permute(target))
    torch.testing.assert_close(permuted_total, total, rtol=1e-5, atol=0)
    assert_same(permuted_terms, rename_views(terms, order))


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.pose_terms)
@few_examples
@given(seed=SEEDS, signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
def test_q_and_minus_q_are_the_same_rotation(make_scene, cfg, seed, signs):
    prediction, target = make_scene(seed)
    flipped = replace(prediction, pose_quat=prediction.pose_quat * torch.tensor(signs)[:, None])
    criterion = Criterion(cfg)
    assert_same(criterion(flipped, target)[1], criterion(prediction, target)[1])


@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda cfg: cfg.pose_terms)
@pytest.mark.parametrize("training", [True, False])
@few_examples
@given(seed=SEEDS)
def test_a_perfect_prediction_scores_zero(make_scene, cfg, training, seed):
    _, target = make_scene(seed)
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
    total, terms = Criterion(cfg).train(training)(perfect, target)
    normal = {name: value for name, value in terms.items() if name.startswith("normal_view")}
    others = {name: value for name, value in terms.items() if not name.startswith("normal")}
    torch.testing.assert_close(others, {name: torch.tensor(0.0) for name in others}, rtol=0, atol=1e-5)
    # Angles are clamped to at least a degree, so normals keep a floor; a patch has at most four corners.
    floor = cfg.weights.normal * 0.5 * MIN_ANGLE**2 / QUADRATIC_BELOW / target.depth.shape[-1]
    assert all(0 < value <= 1.01 * floor for value in normal.values())
    assert total < 3 * 1.01 * floor + 1e-4


def test_weight_zero_leaves_a_term_out(make_scene):
    prediction, target = make_scene(0)
    cfg = LossConfig(weights=LossWeights(*[0.0] * 10))
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
