"""The reference-free objective: it depends on neither the frame of a prediction nor constants of a rig."""

from dataclasses import fields, replace

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.geometry import invert, pose_from_quat_trans, quat_trans_from_pose, transform_points
from coopmap.losses import Criterion
from coopmap.types import Prediction, prediction_in_view0

FRAME_OF_A_PREDICTION = ("pose_quat", "pose_trans", "points_world")


def random_motion(seed):
    """A rotation by any angle and tens of meters."""
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(1, 1, 4, generator=generator, dtype=torch.float64), dim=-1)
    return pose_from_quat_trans(quat, 40 * torch.randn(1, 1, 3, generator=generator, dtype=torch.float64))


def moved(prediction, motion):
    """The prediction in another frame: ``motion`` maps points of the old frame into the new one."""
    quat, _ = quat_trans_from_pose(motion)
    points = prediction.points_world
    in_new_frame = transform_points(motion[:, 0].to(points), points.flatten(1, 3)).view_as(points)
    return replace(
        prediction,
        pose_quat=roma.quat_product(quat.to(points).expand_as(prediction.pose_quat), prediction.pose_quat),
        pose_trans=transform_points(motion[:, 0].to(points), prediction.pose_trans),
        points_world=in_new_frame,
    )


def doubled(record):
    return record.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_rigid_motion_of_the_predictions_world_changes_nothing(make_full_scene, load, training, seed):
    prediction, target = make_full_scene(seed)
    criterion = Criterion(load("relative")).train(training)
    _, expected = criterion(prediction, target)
    _, terms = criterion(moved(prediction, random_motion(seed)), target)
    torch.testing.assert_close(terms, expected, rtol=2e-4, atol=1e-5)


def test_the_same_motion_changes_the_objective_with_a_reference(make_full_scene, load):
    prediction, target = make_full_scene(0)
    criterion = Criterion(load("v11")).eval()
    terms, elsewhere = (criterion(each, target)[1] for each in (prediction, moved(prediction, random_motion(0))))
    changed = {name for name in terms if (terms[name] - elsewhere[name]).abs() > 1e-2}
    assert {"pts3d_avg", "pose_quats_avg", "pose_trans_avg"} <= changed


def test_a_prediction_in_view_0_is_what_matrices_say(make_scene):
    prediction, _ = make_scene(3)
    pose = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
    result = prediction_in_view0(prediction)
    expected = invert(pose[:, :1]) @ pose
    actual = pose_from_quat_trans(result.pose_quat, result.pose_trans)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual[:, 0], torch.eye(4).expand(2, 4, 4), rtol=0, atol=1e-6)
    points = transform_points(invert(pose[:, 0]), prediction.points_world.flatten(1, 3))
    torch.testing.assert_close(result.points_world.flatten(1, 3), points, rtol=1e-4, atol=1e-4)
    kept = {field.name for field in fields(Prediction)} - set(FRAME_OF_A_PREDICTION)
    assert all(getattr(result, name) is getattr(prediction, name) for name in kept)


def test_gradients_of_moving_a_prediction_are_those_of_finite_differences(make_scene):
    prediction = doubled(make_scene(1, batch=1, views=2, height=2, width=2)[0])
    leaves = [getattr(prediction, name).clone().requires_grad_() for name in FRAME_OF_A_PREDICTION]

    def move(*values):
        result = prediction_in_view0(replace(prediction, **dict(zip(FRAME_OF_A_PREDICTION, values, strict=True))))
        return tuple(getattr(result, name) for name in FRAME_OF_A_PREDICTION)

    assert torch.autograd.gradcheck(move, leaves)


def test_no_gradient_moves_the_world_as_a_whole(make_full_scene, load):
    """Forces on translations and world points cancel in sum: nothing ties the prediction's frame."""
    prediction, target = make_full_scene(2)
    shift = torch.zeros(2, 1, 3, requires_grad=True)
    shifted = replace(
        prediction,
        pose_trans=prediction.pose_trans + shift,
        points_world=prediction.points_world + shift[:, :, None, None],
    )
    sizes = {}
    for choice in ("relative", "v11"):
        total, _ = Criterion(load(choice))(shifted, target)
        sizes[choice] = torch.autograd.grad(total, shift)[0].abs().max().item()
    assert sizes["relative"] < 1e-5
    assert sizes["v11"] > 1e-3


def with_camera_moved(prediction, view):
    """View ``view`` elsewhere relative to everything else, in the pose terms alone."""
    trans, quat = prediction.pose_trans.clone(), prediction.pose_quat.clone()
    trans[:, view] += torch.tensor([3.0, -1.0, 2.0])
    quat[:, view] = roma.quat_product(quat[:, view], torch.tensor([0.0, 0.6, 0.0, 0.8]).expand(2, 4))
    return replace(prediction, pose_trans=trans, pose_quat=quat)


def only_poses(cfg):
    cfg.weights = type(cfg.weights)(**dict.fromkeys(vars(cfg.weights), 0.0) | {"pose_quats": 1.0, "pose_trans": 1.0})
    return cfg


def test_pairs_inside_one_agent_are_constants_that_do_not_count(make_full_scene, load):
    prediction, target = make_full_scene(4, views=2)  # both on one car
    terms = Criterion(only_poses(load("relative")))(with_camera_moved(prediction, 1), target)[1]
    assert {name: value.item() for name, value in terms.items()} == dict.fromkeys(terms, 0.0)
    every = Criterion(only_poses(replace(load("relative"), pairs="all")))(prediction, target)[1]
    assert every["pose_trans_avg"] > 0.1
    assert every["pose_quats_avg"] > 0.1


def test_a_view_is_averaged_over_the_other_cars_views(make_full_scene, load):
    """With four views of two cars, a view has two partners instead of three; each pair scores the same from both ends
    for rotations."""
    prediction, target = make_full_scene(5)
    between = Criterion(only_poses(load("relative"))).eval()(prediction, target)[1]
    every = Criterion(only_poses(replace(load("relative"), pairs="all"))).eval()(prediction, target)[1]
    for view, mate in ((0, 1), (2, 3)):
        pair = [view, mate]
        record = prediction.map(lambda tensor, pair=pair: tensor[:, pair] if tensor.ndim > 1 else tensor)
        truth = target.map(lambda tensor, pair=pair: tensor[:, pair] if tensor.ndim > 1 else tensor)
        inside = Criterion(only_poses(replace(load("relative"), pairs="all"))).eval()(record, truth)[1]
        name = f"pose_quats_view{view + 1}"
        torch.testing.assert_close(3 * every[name], 2 * between[name] + inside["pose_quats_view1"])


def test_where_views_are_agents_all_pairs_are_between_agents(make_scene, load):
    prediction, target = make_scene(6)
    between, every = (Criterion(replace(load("relative"), pairs=pairs)) for pairs in ("between_agents", "all"))
    expected = every(prediction, target)[1]
    assert between(prediction, target)[1] == expected
    numbered = replace(target, agent=torch.arange(3).expand(2, 3))
    assert between(prediction, numbered)[1] == expected


def test_without_confidence_training_and_evaluation_agree(make_scene, load):
    prediction, target = make_scene(7)
    confidence = prediction.confidence.clone().requires_grad_()
    criterion = Criterion(replace(load("v11"), confidence_alpha=None, view_scaling=False))
    total, terms = criterion(replace(prediction, confidence=confidence), target)
    assert not total.requires_grad
    expected, evaluated = criterion.eval()(prediction, target)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(terms, evaluated)
