"""Each term against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from coopmap.config.loss import LossConfig
from coopmap.geometry import invert, pose_from_quat_trans
from coopmap.losses import Criterion
from coopmap.losses.mask import mask_loss
from coopmap.losses.normalised import Geometry, mean_distance, normalise, truth_in_view0
from coopmap.losses.pose import pairwise_poses, pose_losses
from coopmap.losses.robust import log_length, robust_loss
from coopmap.losses.surface import MIN_ANGLE, QUADRATIC_BELOW, dense_pixels, gradient_matching_loss, normal_loss

IDENTITY = [0.0, 0.0, 0.0, 1.0]


def plane_points(height, width, spacing=0.1):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([columns * spacing, rows * spacing, torch.ones(height, width)], dim=-1)
    return points[None, None].float()


def poses(trans, quat=IDENTITY):
    """A geometry that holds nothing but poses."""
    trans = torch.tensor(trans)[None]
    empty = torch.zeros(1)
    return Geometry(empty, empty, empty, empty, torch.tensor(quat).expand(1, trans.shape[1], 4), trans)


def test_robust_loss_of_an_error_of_c():
    loss = robust_loss(torch.tensor([0.05, 0.0]), torch.zeros(2), alpha=0.5, c=0.05)
    assert loss.item() == pytest.approx(3 * ((1 / 1.5 + 1) ** 0.25 - 1), rel=1e-6)


def test_pose_trans_of_five_at_weight_three_is_a_normalised_error_of_about_an_eighth():
    loss = robust_loss(torch.tensor([0.135, 0.0, 0.0]), torch.zeros(3), alpha=0.5, c=0.05)
    assert 3 * loss.item() == pytest.approx(5.0, abs=0.1)


def test_log_length_keeps_direction_and_sign():
    torch.testing.assert_close(log_length(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]) * math.log(6))
    torch.testing.assert_close(log_length(torch.tensor([-3.0])), torch.tensor([-math.log(4)]))
    assert log_length(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_mean_distance_is_over_valid_points_of_all_views():
    points = torch.zeros(2, 2, 1, 2, 3)
    points[0, 0, 0, 0, 0], points[0, 1, 0, 1, 2], points[0, 1, 0, 0, 1] = 3.0, -6.0, 100.0
    valid = torch.zeros(2, 2, 1, 2, dtype=torch.bool)
    valid[0, 0, 0, 0] = valid[0, 0, 0, 1] = valid[0, 1, 0, 1] = True
    assert mean_distance(points, valid).tolist() == [3.0, 1.0]  # (3 + 0 + 6) / 3; no valid point: 1


def test_truth_in_view0_of_two_cars_facing_each_other(make_scene):
    _, target = make_scene(0, batch=1, views=2, height=1, width=1)
    turned = [0.0, 1.0, 0.0, 0.0]  # 180 degrees about the vertical axis
    pose = pose_from_quat_trans(torch.tensor([[IDENTITY, turned]]), torch.tensor([[[100.0, 0, 0], [100.0, 0, 20.0]]]))
    rays = torch.tensor([0.0, 0.0, 1.0]).expand_as(target.rays)
    truth = truth_in_view0(replace(target, pose=pose, rays=rays, depth=torch.full_like(target.depth, 5.0)))
    torch.testing.assert_close(truth.trans[0], torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 20.0]]))
    torch.testing.assert_close(truth.points_world[0, :, 0, 0], torch.tensor([[0.0, 0, 5.0], [0.0, 0, 15.0]]))


def test_normalise_takes_out_the_metric_scale_and_the_mean_distance(make_scene):
    prediction, target = make_scene(5)
    pair = normalise(prediction, target)
    for side in (pair.prediction, pair.truth):
        torch.testing.assert_close(mean_distance(side.points_world, target.valid), torch.ones(2))
    metric = mean_distance(prediction.points_world, target.valid)
    torch.testing.assert_close(pair.predicted_distance_m, metric)
    torch.testing.assert_close(pair.prediction.trans, prediction.pose_trans / metric[:, None, None])
    assert pair.has_metric_distance.tolist() == target.is_metric.tolist()


def test_pairwise_poses_are_products_of_matrices(make_scene):
    prediction, _ = make_scene(7)
    pose = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
    pairs = pose_from_quat_trans(*pairwise_poses(prediction.pose_quat, prediction.pose_trans))
    torch.testing.assert_close(pairs, invert(pose)[:, :, None] @ pose[:, None], rtol=1e-4, atol=1e-4)


def test_pose_terms_average_a_view_with_its_pairs():
    def robust(error):
        return 3 * ((error**2 / 0.05**2 / 1.5 + 1) ** 0.25 - 1)

    truth, prediction = poses([[0.0, 0, 0], [1.0, 0, 0]]), poses([[0.0, 0, 0.1], [1.0, 0.2, 0]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    pair = robust(math.hypot(0.1, 0.2))
    expected = {
        "absolute": [robust(0.1), robust(0.2)],
        "pairwise": [pair, pair],
        "both": [(robust(0.1) + pair) / 2, (robust(0.2) + pair) / 2],
    }
    for pose_terms, values in expected.items():
        quats, trans = pose_losses(prediction, truth, valid, LossConfig(pose_terms=pose_terms))
        assert trans.tolist() == pytest.approx(values, rel=1e-5)
        assert quats.tolist() == [0.0, 0.0]


def test_a_view_without_depth_has_no_translation_loss_and_no_part_in_pairs():
    truth, prediction = poses([[0.0, 0, 0], [1.0, 0, 0]]), poses([[0.0, 0, 0.1], [1.0, 0.2, 0]])
    valid = torch.tensor([[True, False]])
    _, trans = pose_losses(prediction, truth, valid, LossConfig(pose_terms="both"))
    _, absolute = pose_losses(prediction, truth, valid, LossConfig(pose_terms="absolute"))
    assert trans.tolist() == absolute.tolist()
    assert absolute[1] == 0


@pytest.mark.parametrize("tilt_deg", [2.0, 10.0, 60.0])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4])
def test_normal_loss_of_a_tilted_plane(tilt_deg, size):
    """At any size: upstream's guard of 1e-12 turns small differences into right angles."""
    height, width = 6, 9
    tilt = math.radians(tilt_deg)
    rotation = torch.tensor([[1.0, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    points = plane_points(height, width)
    offset = torch.tensor([0.0, 0.0, 1.0])
    truth = (points - offset) * size
    loss = normal_loss(truth @ rotation.T, truth, torch.ones(1, 1, height, width, dtype=torch.bool))
    per_corner = tilt - QUADRATIC_BELOW / 2 if tilt > QUADRATIC_BELOW else tilt**2 / 2 / QUADRATIC_BELOW
    assert loss.tolist() == pytest.approx([per_corner / width], rel=1e-4)


def test_normal_loss_counts_corners_of_valid_pixels_only():
    points = plane_points(2, 2)
    floor = MIN_ANGLE**2 / 2 / QUADRATIC_BELOW
    mask = torch.tensor([[[[True, True], [True, False]]]])  # one corner of the only patch
    assert normal_loss(points, points, mask).tolist() == pytest.approx([floor / 8], rel=1e-4)
    mask[..., 0, 0] = False
    assert normal_loss(points, points, mask).tolist() == [0.0]


def test_gradient_matching_of_a_ramp_in_log_depth():
    height, width, slope = 8, 16, 0.01
    truth = plane_points(height, width)
    prediction = truth.clone()
    prediction[..., 2] = torch.expm1(math.log(2) + slope * torch.arange(width))
    mask = torch.ones(1, 1, height, width, dtype=torch.bool)
    columns = {step: width // step for step in (1, 2, 4, 8)}
    expected = sum(slope * step * (count - 1) / count for step, count in columns.items())
    assert gradient_matching_loss(prediction, truth, mask).tolist() == pytest.approx([expected], rel=1e-4)
    mask[..., 1::2] = False  # no neighbours at full resolution; half of the columns count there
    expected -= slope * (width - 1) / width
    assert gradient_matching_loss(prediction, truth, mask).tolist() == pytest.approx([expected], rel=1e-4)


def test_normals_follow_the_flag_or_the_density(make_scene):
    _, target = make_scene(0)
    valid = torch.zeros_like(target.valid)
    valid[:, 0, :5] = True  # half of view 0
    valid[:, 1, :3] = True  # three tenths of view 1
    target = replace(target, valid=valid, non_ambiguous=torch.ones_like(valid))
    synthetic = dense_pixels(target, LossConfig(normals="synthetic"))
    assert torch.equal(synthetic[0], valid[0])
    assert not synthetic[1].any()
    dense = dense_pixels(target, LossConfig(normals="dense", dense_share=0.4))
    assert torch.equal(dense[:, 0], valid[:, 0])
    assert not dense[:, 1:].any()


def test_the_largest_errors_are_left_out_on_measured_data_only(make_scene):
    prediction, target = make_scene(0, batch=1, height=10, width=20)
    target = replace(target, valid=torch.ones_like(target.valid))
    criterion = Criterion(LossConfig(exclude_top_percent=5.0)).eval()
    synthetic = criterion(prediction, replace(target, is_synthetic=torch.tensor([True])))[1]
    measured = criterion(prediction, replace(target, is_synthetic=torch.tensor([False])))[1]
    assert synthetic["depth_along_ray_bot95%_loss_view1"] == synthetic["depth_along_ray_view1"]
    pair = normalise(prediction, target)
    losses = robust_loss(
        log_length(pair.prediction.depth[0, 0, ..., None]), log_length(pair.truth.depth[0, 0, ..., None]), 0.5, 0.05
    )
    expected = losses.flatten().sort().values[:190].mean()
    torch.testing.assert_close(measured["depth_along_ray_bot95%_loss_view1"], expected)


def test_confidence_weights_world_points_in_training(make_scene):
    prediction, target = make_scene(0)
    sure = replace(prediction, confidence=torch.full_like(prediction.confidence, math.e))
    terms = Criterion(LossConfig()).train()(sure, target)[1]
    torch.testing.assert_close(terms["pts3d_conf_loss_view1"], math.e * terms["pts3d_view1"] - 0.2)


def test_depth_z_compares_the_forward_coordinate(make_scene):
    prediction, target = make_scene(0)
    terms = Criterion(LossConfig(depth="z")).eval()(prediction, target)[1]
    assert "depth_along_ray_avg" not in terms
    sideways = prediction.points_view.clone()
    sideways[..., 0] += 1.0
    moved = Criterion(LossConfig(depth="z")).eval()(replace(prediction, points_view=sideways), target)[1]
    assert moved["depth_z_avg"] == terms["depth_z_avg"]
    assert moved["cam_pts3d_avg"] != terms["cam_pts3d_avg"]


def test_mask_loss_balances_covered_and_uncovered_pixels():
    covered = torch.tensor([True, True, True, False]).view(1, 1, 1, 4)
    logits = torch.zeros(1, 1, 1, 4)
    assert mask_loss(logits, covered, LossConfig()).item() == pytest.approx(math.log(2))
    balanced = mask_loss(logits, covered, LossConfig(mask_pos_weight="auto"))
    assert balanced.item() == pytest.approx(0.5 * math.log(2))  # weight 1/3 on three of four
    everything = mask_loss(logits, torch.ones_like(covered), LossConfig(mask_pos_weight="auto"))
    assert everything.item() == pytest.approx(0.1 * math.log(2))


def test_evaluation_compares_as_published_whatever_training_does(make_scene):
    prediction, target = make_scene(0)
    published, convex = Criterion(LossConfig()), Criterion(LossConfig(robust_alpha=1.0, robust_c=0.5))
    assert convex(prediction, target)[1]["pose_trans_avg"] != published(prediction, target)[1]["pose_trans_avg"]
    _, expected = published.eval()(prediction, target)
    _, terms = convex.eval()(prediction, target)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
