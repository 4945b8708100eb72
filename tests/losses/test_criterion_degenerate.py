"""Scenes without enough in them still give finite losses and gradients, and nothing waits for the device."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.config.loss import LossConfig
from coopmap.losses import Criterion
from coopmap.metrics.term_means import TermMeans


def as_leaves(prediction):
    return prediction.map(lambda tensor: tensor.detach().clone().requires_grad_())


def without_depth(target, views):
    valid = target.valid.clone()
    valid[:, views] = False
    return replace(target, valid=valid, depth=target.depth * valid)


def no_depth_in_one_view(prediction, target):
    return prediction, without_depth(target, [1])


def no_depth_in_view0(prediction, target):
    return prediction, without_depth(target, [0])


def no_depth_at_all(prediction, target):
    return prediction, without_depth(target, slice(None))


def all_sky_nothing_covered(prediction, target):
    return prediction, replace(without_depth(target, slice(None)), non_ambiguous=torch.zeros_like(target.non_ambiguous))


def one_valid_pixel(prediction, target):
    valid = torch.zeros_like(target.valid)
    valid[:, :, 3, 4] = True
    return prediction, replace(target, valid=valid, is_synthetic=torch.zeros_like(target.is_synthetic))


def a_single_view(prediction, target):
    def first_view(tensor):
        return tensor[:, :1] if tensor.ndim > 1 else tensor

    return prediction.map(first_view), target.map(first_view)


def coincident_agents(prediction, target):
    pose = target.pose[:, :1].expand_as(target.pose)
    return replace(
        prediction,
        pose_trans=torch.zeros_like(prediction.pose_trans),
        pose_quat=prediction.pose_quat[:, :1].expand_as(prediction.pose_quat),
    ), replace(target, pose=pose)


def prediction_collapsed_to_a_point(prediction, target):
    lengths = ("depth", "pose_trans", "points_view", "points_world")
    return replace(prediction, **{name: torch.zeros_like(getattr(prediction, name)) for name in lengths}), target


def bf16_predictions(prediction, target):
    return prediction.map(lambda tensor: tensor.bfloat16()), target


def constant_bf16_predictions(prediction, target):
    """Neighboring points that round to the same number have no normal."""
    points = torch.ones_like(prediction.points_view)
    return prediction.map(lambda tensor: tensor.bfloat16()), replace(target, rays=points / 3**0.5)


def nothing_counts(prediction, target):
    return prediction, replace(target, moving=torch.ones_like(target.moving))


def every_camera_on_one_car_at_one_place(prediction, target):
    prediction, target = coincident_agents(prediction, target)
    one = target.rig_pose[:, :1].expand_as(target.rig_pose)
    return prediction, replace(target, agent=torch.zeros_like(target.agent), rig_pose=one)


def no_two_cameras_on_one_car(prediction, target):
    return prediction, replace(target, agent=torch.arange(target.agent.shape[1]).expand_as(target.agent))


def no_metric_sample(prediction, target):
    return prediction, replace(target, is_metric=torch.zeros_like(target.is_metric))


SCENES = [
    no_depth_in_one_view,
    no_depth_in_view0,
    no_depth_at_all,
    all_sky_nothing_covered,
    one_valid_pixel,
    a_single_view,
    coincident_agents,
    prediction_collapsed_to_a_point,
    bf16_predictions,
    constant_bf16_predictions,
    nothing_counts,
    every_camera_on_one_car_at_one_place,
    no_two_cameras_on_one_car,
    no_metric_sample,
]


@pytest.mark.parametrize("degrade", SCENES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pose_terms", ["absolute", "pairwise", "both"])
def test_loss_and_gradients_stay_finite(make_full_scene, every_term, degrade, training, pose_terms):
    prediction, target = degrade(*make_full_scene(1))
    prediction, teacher = as_leaves(prediction), prediction
    criterion = Criterion(replace(every_term(), pose_terms=pose_terms)).train(training)
    total, terms = criterion(prediction, target, teacher=teacher)
    total.backward()
    assert total.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in terms.values())
    gradients = {name: value.grad for name, value in vars(prediction).items() if value is not None}
    untouched = {name for name, gradient in gradients.items() if gradient is None}
    assert untouched <= {"confidence"}
    present = [gradient for gradient in gradients.values() if gradient is not None]
    assert all(gradient.isfinite().all() for gradient in present)


def test_points_that_coincide_get_no_gradient_from_normals(make_scene):
    prediction, target = make_scene(1)
    cfg = LossConfig(normals="dense", dense_share=0.01)
    flat = replace(prediction, points_view=torch.ones_like(prediction.points_view))
    leaf = as_leaves(flat)
    cfg.weights.cam_pts3d = cfg.weights.gradient_matching = 0.0
    Criterion(cfg)(leaf, target)[0].backward()
    assert leaf.points_view.grad.abs().max() == 0


def test_pixels_without_depth_do_not_count(make_scene):
    prediction, target = make_scene(3)
    nonsense = torch.where(target.valid, target.depth, 1e6)
    criterion = Criterion(LossConfig()).eval()
    expected, _ = criterion(prediction, replace(target, depth=target.depth * target.valid))
    actual, _ = criterion(prediction, replace(target, depth=nonsense))
    torch.testing.assert_close(actual, expected)


def test_translations_of_views_without_depth_do_not_count(make_scene):
    prediction, target = make_scene(3)
    target = without_depth(target, [2])
    criterion = Criterion(LossConfig(pose_terms="both")).eval()
    elsewhere = prediction.pose_trans.clone()
    elsewhere[:, 2] += 100.0
    terms = criterion(prediction, target)[1]
    moved = criterion(replace(prediction, pose_trans=elsewhere), target)[1]
    names = [name for name in terms if name.startswith("pose_trans")]
    assert {name: moved[name] for name in names} == {name: terms[name] for name in names}
    assert terms["pose_trans_view3"] == 0


ALWAYS = {"ray_directions", "pose_quats", "mask", "height", "rig"}
"""Published terms and our own that need no known depth."""


@pytest.mark.parametrize("pose_terms", ["absolute", "pairwise", "both"])
def test_what_needs_depth_is_not_measured_without(make_full_scene, every_term, pose_terms):
    prediction, target = no_depth_at_all(*make_full_scene(1))
    criterion = Criterion(replace(every_term(), pose_terms=pose_terms)).eval()
    _, terms = criterion(prediction, target)
    assert terms.keys() == terms.measured.keys()
    names = {name for name, measured in terms.measured.items() if measured}
    assert {name.rsplit("_", 1)[0] for name in names} == ALWAYS
    assert all(value == 0 for name, value in terms.items() if name not in names)
    assert all(criterion(*make_full_scene(1))[1].measured.values())


def test_a_view_without_depth_is_not_measured_and_the_others_are(make_scene):
    _, terms = Criterion(LossConfig(pose_terms="both")).eval()(*no_depth_in_one_view(*make_scene(1)))
    for name in ("pose_trans", "pts3d", "cam_pts3d", "depth_along_ray"):
        assert [bool(terms.measured[f"{name}_{part}"]) for part in ("view1", "view2", "avg")] == [True, False, True]


def test_no_pair_and_no_metric_sample_measure_nothing(make_full_scene, every_term):
    alone = Criterion(replace(every_term(), pose_terms="pairwise")).eval()(*a_single_view(*make_full_scene(1)))[1]
    assert not any(alone.measured[f"{name}_avg"] for name in ("pose_quats", "pose_trans", "rig"))
    terms = Criterion(every_term()).eval()(*no_metric_sample(*make_full_scene(1)))[1]
    assert not terms.measured["scale"]
    assert not terms.measured["height_avg"]


def test_the_scale_term_teaches_the_scale_alone(make_scene):
    prediction, target = make_scene(2)
    cfg = LossConfig()
    for term in ("pts3d", "cam_pts3d", "depth", "ray_directions", "pose_quats", "pose_trans"):
        setattr(cfg.weights, term, 0.0)
    cfg.weights.normal = cfg.weights.gradient_matching = cfg.weights.mask = 0.0
    leaf = as_leaves(prediction)
    Criterion(cfg)(leaf, target)[0].backward()
    assert leaf.scale.grad[0] != 0
    assert leaf.scale.grad[1] == 0  # not a metric sample
    assert leaf.points_world.grad is None


@pytest.mark.parametrize("training", [True, False])
def test_nothing_waits_for_the_device(make_full_scene, every_term, training):
    """Fake tensors have shapes but no values, so any step that needs a value on the host raises."""
    prediction, target = make_full_scene(0)
    with FakeTensorMode() as mode:
        leaf = prediction.map(lambda tensor: mode.from_tensor(tensor).requires_grad_())
        criterion = Criterion(every_term()).train(training)
        total, _ = criterion(leaf, target.map(mode.from_tensor), teacher=prediction.map(mode.from_tensor))
        total.backward()
    assert leaf.points_world.grad.shape == prediction.points_world.shape


def test_autocast_does_not_lower_the_precision(make_full_scene, every_term):
    """Neither forward nor in the backward pass, where the terms are computed again."""
    prediction, target = make_full_scene(0)
    criterion, plain, under_autocast = Criterion(every_term()), as_leaves(prediction), as_leaves(prediction)
    expected, _ = criterion(plain, target, teacher=prediction)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, _ = criterion(under_autocast, target, teacher=prediction)
        actual.backward()
    assert actual.dtype == torch.float32
    assert actual == expected
    assert torch.equal(under_autocast.points_world.grad, plain.points_world.grad)


def joined(records):
    """One batch of several."""
    names = [name for name, value in vars(records[0]).items() if isinstance(value, torch.Tensor)]
    return replace(records[0], **{name: torch.cat([getattr(record, name) for record in records]) for name in names})


def test_means_do_not_depend_on_which_samples_share_a_batch(make_scene):
    """Two samples of three have known depth: their mean, whether the third is measured with one of them or alone."""
    scenes = [make_scene(seed, batch=1) for seed in (1, 2)]
    scenes.append(no_depth_at_all(*make_scene(3, batch=1)))
    criterion = Criterion(LossConfig(pose_terms="both")).eval()

    def mean(*batches):
        means = TermMeans()
        for batch in batches:
            terms = criterion(*(joined(records) for records in zip(*batch, strict=True)))[1]
            means.update(terms, len(batch), terms.measured)
        return means.compute(torch.device("cpu"))

    first, second, blind = scenes
    alone = mean([first], [second])
    for batches in ([[first], [second], [blind]], [[first], [second, blind]], [[first, blind], [second]]):
        found = mean(*batches)
        for name in ("pose_trans_avg", "pose_trans_view2", "pts3d_avg", "cam_pts3d_avg", "scale"):
            assert found[name] == pytest.approx(alone[name].item(), rel=1e-5), name
