"""Each term against values worked out by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from coopmap.config.loss import LossConfig
from coopmap.geometry import invert, pose_from_quat_trans
from coopmap.losses import Criterion
from coopmap.losses.geometry import mask_loss, ray_loss, scale_loss
from coopmap.losses.inputs import LossInputs, dense_pixels, gather
from coopmap.losses.normalized import Normalized, NormalizedPair
from coopmap.losses.normals import MIN_ANGLE, QUADRATIC_BELOW, normal_angle_loss
from coopmap.losses.pose import pairwise_quats, pairwise_trans, quat_loss, trans_loss
from coopmap.losses.robust import log_length, robust_loss
from coopmap.losses.surface import gradient_matching_loss
from coopmap.types import Geometry, mean_distance, truth_in_view0

IDENTITY = [0.0, 0.0, 0.0, 1.0]


def plane_points(height, width, spacing=0.1):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([columns * spacing, rows * spacing, torch.ones(height, width)], dim=-1)
    return points[None, None].float()


def pose_inputs(prediction, truth, view_valid, cfg):
    """Positions of unturned views, in units of the mean distance, and nothing else."""

    def side(trans):
        trans, empty = torch.tensor(trans)[None], torch.zeros(1)
        quat = torch.tensor(IDENTITY).expand(1, trans.shape[1], 4)
        return Normalized(Geometry(empty, empty, empty, empty, quat, trans), torch.ones(trans.shape[:2]))

    weight = view_valid[..., None, None].float()
    pair = NormalizedPair(side(prediction), side(truth), weight, weight, empty := torch.ones(1), empty, empty > 0)
    return LossInputs(cfg, None, SimpleNamespace(foreign=None), pair, torch.ones_like(weight))


def test_robust_loss_of_an_error_of_c():
    loss = robust_loss(torch.tensor([0.05, 0.0]), torch.zeros(2), LossConfig())
    assert loss.item() == pytest.approx(3 * ((1 / 1.5 + 1) ** 0.25 - 1), rel=1e-6)


def test_pose_trans_of_five_at_weight_three_is_a_normalized_error_of_about_an_eighth():
    loss = robust_loss(torch.tensor([0.135, 0.0, 0.0]), torch.zeros(3), LossConfig())
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


def test_normalize_takes_out_the_metric_scale_and_the_mean_distance(make_scene):
    prediction, target = make_scene(5)
    pair = gather(LossConfig(), prediction, target).pair
    for side in (pair.prediction, pair.truth):
        torch.testing.assert_close(mean_distance(side.points_world, target.valid), torch.ones(2))
    metric = mean_distance(prediction.points_world, target.valid)
    torch.testing.assert_close(pair.predicted_distance_m, metric)
    torch.testing.assert_close(pair.prediction.trans, prediction.pose_trans / metric[:, None, None])
    assert pair.has_metric_distance.tolist() == target.is_metric.tolist()


def test_pairwise_poses_are_products_of_matrices(make_scene):
    prediction, _ = make_scene(7)
    pose = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
    quat, trans = prediction.pose_quat, prediction.pose_trans
    pairs = pose_from_quat_trans(pairwise_quats(quat), pairwise_trans(quat, trans))
    torch.testing.assert_close(pairs, invert(pose)[:, :, None] @ pose[:, None], rtol=1e-4, atol=1e-4)


def test_pose_terms_average_a_view_with_its_pairs():
    def robust(error):
        return 3 * ((error**2 / 0.05**2 / 1.5 + 1) ** 0.25 - 1)

    truth, prediction = [[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0.1], [1.0, 0.2, 0]]
    valid = torch.ones(1, 2, dtype=torch.bool)
    pair = robust(math.hypot(0.1, 0.2))
    expected = {
        "absolute": [robust(0.1), robust(0.2)],
        "pairwise": [pair, pair],
        "both": [(robust(0.1) + pair) / 2, (robust(0.2) + pair) / 2],
    }
    for pose_terms, values in expected.items():
        inputs = pose_inputs(prediction, truth, valid, LossConfig(pose_terms=pose_terms))
        assert trans_loss(inputs).tolist() == pytest.approx(values, rel=1e-5)
        assert quat_loss(inputs).tolist() == [0.0, 0.0]


def test_a_view_without_depth_has_no_translation_loss_and_no_part_in_pairs():
    truth, prediction = [[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0.1], [1.0, 0.2, 0]]
    valid = torch.tensor([[True, False]])
    trans = trans_loss(pose_inputs(prediction, truth, valid, LossConfig(pose_terms="both")))
    absolute = trans_loss(pose_inputs(prediction, truth, valid, LossConfig(pose_terms="absolute")))
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
    loss = normal_angle_loss(truth @ rotation.T, truth, torch.ones(1, 1, height, width, dtype=torch.bool))
    per_corner = tilt - QUADRATIC_BELOW / 2 if tilt > QUADRATIC_BELOW else tilt**2 / 2 / QUADRATIC_BELOW
    assert loss.tolist() == pytest.approx([per_corner / width], rel=1e-4)


def test_normal_loss_counts_corners_of_valid_pixels_only():
    points = plane_points(2, 2)
    floor = MIN_ANGLE**2 / 2 / QUADRATIC_BELOW
    mask = torch.tensor([[[[True, True], [True, False]]]])  # one corner of the only patch
    assert normal_angle_loss(points, points, mask).tolist() == pytest.approx([floor / 8], rel=1e-4)
    mask[..., 0, 0] = False
    assert normal_angle_loss(points, points, mask).tolist() == [0.0]


def test_gradient_matching_of_a_ramp_in_log_depth():
    height, width, slope = 8, 16, 0.01
    truth = plane_points(height, width)
    prediction = truth.clone()
    prediction[..., 2] = torch.expm1(math.log(2) + slope * torch.arange(width))
    prediction, truth = prediction[..., 2:], truth[..., 2:]
    mask = torch.ones(1, 1, height, width, dtype=torch.bool)
    columns = {step: width // step for step in (1, 2, 4, 8)}
    expected = sum(slope * step * (count - 1) / count for step, count in columns.items())
    assert gradient_matching_loss(prediction, truth, mask).tolist() == pytest.approx([expected], rel=1e-4)
    mask[..., 1::2] = False  # no neighbors at full resolution; half of the columns count there
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
    pair = gather(LossConfig(), prediction, target).pair
    predicted, true = (
        log_length(side.metric.depth[0, 0, ..., None] / side.unit_m[0, 0]) for side in (pair.prediction, pair.truth)
    )
    losses = robust_loss(predicted, true, LossConfig())
    expected = losses.flatten().sort().values[:190].mean()
    torch.testing.assert_close(measured["depth_along_ray_bot95%_loss_view1"], expected)


def test_confidence_weights_world_points_in_training(make_scene):
    prediction, target = make_scene(0)
    sure = replace(prediction, confidence=torch.full_like(prediction.confidence, math.e))
    terms = Criterion(LossConfig()).train()(sure, target)[1]
    torch.testing.assert_close(terms["pts3d_conf_loss_view1"], math.e * terms["pts3d_view1"] - 0.2)


def test_points_and_depth_compare_lengths_in_log_space(make_scene):
    """Two points on one ray, each side in units of its own mean distance of three meters."""
    prediction, target = make_scene(0, batch=1, views=1, height=1, width=2)
    ray = torch.tensor([0.0, 0.6, 0.8]).expand_as(target.rays)
    depth, truth = torch.tensor([1.0, 5.0]).view(1, 1, 1, 2), torch.tensor([4.0, 2.0]).view(1, 1, 1, 2)
    points = ray * depth[..., None]
    prediction = replace(prediction, rays=ray, depth=depth, points_view=points, points_world=points)
    target = replace(target, rays=ray, depth=truth, valid=torch.ones_like(target.valid))
    errors = [math.log(4 / 3 + 1) - math.log(1 / 3 + 1), math.log(5 / 3 + 1) - math.log(2 / 3 + 1)]
    expected = sum(3 * ((error**2 / 0.05**2 / 1.5 + 1) ** 0.25 - 1) for error in errors) / 2
    terms = Criterion(LossConfig()).eval()(prediction, target)[1]
    for name in ("pts3d", "cam_pts3d", "depth_along_ray"):
        assert terms[f"{name}_view1"].item() == pytest.approx(expected, rel=1e-4)


def test_rays_count_in_every_pixel_known_or_not(make_scene):
    prediction, target = make_scene(0, batch=1, views=1, height=1, width=4)
    rays = torch.tensor([0.0, 0.0, 1.0]).repeat(1, 1, 1, 4, 1)
    turned = rays.clone()
    turned[..., 0, :] = torch.tensor([0.0, 0.6, 0.8])  # a chord of sqrt(0.4)
    target = replace(target, rays=rays, valid=torch.zeros_like(target.valid))
    loss = ray_loss(gather(LossConfig(), replace(prediction, rays=turned), target))
    assert loss.item() == pytest.approx(3 * ((0.4 / 0.05**2 / 1.5 + 1) ** 0.25 - 1) / 4, rel=1e-5)


def test_the_sign_of_a_quaternion_does_not_matter_and_its_angle_does():
    half = math.radians(10) / 2
    turned = torch.tensor([[IDENTITY, [0.0, math.sin(half), 0.0, math.cos(half)]]])
    inputs = pose_inputs([[0.0, 0, 0], [0.0, 0, 0]], [[0.0, 0, 0], [0.0, 0, 0]], torch.ones(1, 2), LossConfig())
    squared = 2 - 2 * math.cos(half)
    expected = 3 * ((squared / 0.05**2 / 1.5 + 1) ** 0.25 - 1)
    for sign in (1.0, -1.0):
        side = replace(inputs.pair.prediction, metric=replace(inputs.pair.prediction.metric, quat=sign * turned))
        loss = quat_loss(replace(inputs, pair=replace(inputs.pair, prediction=side)))
        assert loss.tolist() == pytest.approx([0.0, expected], rel=1e-4)


def test_scale_is_the_mean_distance_in_meters_on_metric_samples(make_scene):
    prediction, target = make_scene(4, batch=3)
    target = replace(target, is_metric=torch.tensor([True, False, True]))
    distances = zip(
        mean_distance(prediction.points_world, target.valid).tolist(),
        mean_distance(truth_in_view0(target).points_world, target.valid).tolist(),
        target.is_metric.tolist(),
        strict=True,
    )
    errors = [math.log1p(predicted) - math.log1p(true) for predicted, true, metric in distances if metric]
    expected = sum(3 * ((error**2 / 0.05**2 / 1.5 + 1) ** 0.25 - 1) for error in errors) / 2
    assert scale_loss(gather(LossConfig(), prediction, target)).item() == pytest.approx(expected, rel=1e-4)


def test_depth_z_compares_the_forward_coordinate(make_scene):
    prediction, target = make_scene(0)
    terms = Criterion(LossConfig(depth="z")).eval()(prediction, target)[1]
    assert "depth_along_ray_avg" not in terms
    sideways = prediction.points_view.clone()
    sideways[..., 0] += 1.0
    moved = Criterion(LossConfig(depth="z")).eval()(replace(prediction, points_view=sideways), target)[1]
    assert moved["depth_z_avg"] == terms["depth_z_avg"]
    assert moved["cam_pts3d_avg"] != terms["cam_pts3d_avg"]


def test_mask_loss_balances_covered_and_uncovered_pixels(make_scene):
    prediction, target = make_scene(0, batch=1, views=1, height=1, width=4)

    def loss(covered, **values):
        covered = torch.tensor(covered).view(1, 1, 1, 4)
        unsure = replace(prediction, mask_logits=torch.zeros(1, 1, 1, 4))
        return mask_loss(gather(LossConfig(**values), unsure, replace(target, non_ambiguous=covered))).item()

    most = [True, True, True, False]
    assert loss(most) == pytest.approx(math.log(2))
    assert loss(most, mask_pos_weight="auto") == pytest.approx(0.5 * math.log(2))  # weight 1/3 on three of four
    assert loss([True] * 4, mask_pos_weight="auto") == pytest.approx(0.1 * math.log(2))


def test_evaluation_compares_as_published_whatever_training_does(make_scene):
    prediction, target = make_scene(0)
    published, convex = Criterion(LossConfig()), Criterion(LossConfig(robust_alpha=1.0, robust_c=0.5))
    assert convex(prediction, target)[1]["pose_trans_avg"] != published(prediction, target)[1]["pose_trans_avg"]
    _, expected = published.eval()(prediction, target)
    _, terms = convex.eval()(prediction, target)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
