"""Terms and weights that upstream does not have, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from coopmap.config.checks import ConfigError
from coopmap.config.loss import HeightPrior, LossConfig, LossWeights, PixelFactors
from coopmap.geometry import pose_from_quat_trans
from coopmap.losses import Criterion
from coopmap.losses.inputs import gather, pixel_factor
from coopmap.losses.regularizers import (
    angle_between_quats,
    height_excess,
    height_loss,
    rig_loss,
    same_car,
    scale_distillation_loss,
)

IDENTITY = [0.0, 0.0, 0.0, 1.0]


def robust(error):
    return 3 * ((error**2 / 0.05**2 / 1.5 + 1) ** 0.25 - 1)


def about_y(angle):
    return [0.0, math.sin(angle / 2), 0.0, math.cos(angle / 2)]


# Scale distillation


def test_distillation_compares_the_logarithms_of_the_scales(make_scene):
    prediction, target = make_scene(0)
    student = replace(prediction, scale=torch.tensor([2.0, 3.0]))
    teacher = replace(prediction, scale=torch.tensor([2.0 * 1.1, 3.0 / 1.2]))
    loss = scale_distillation_loss(gather(LossConfig(), student, target, teacher))
    assert loss.item() == pytest.approx((robust(math.log(1.1)) + robust(math.log(1.2))) / 2, rel=1e-5)


def test_distillation_teaches_the_scale_alone_and_not_the_teacher(make_scene):
    prediction, target = make_scene(0)
    student, teacher = (
        prediction.map(lambda tensor, factor=factor: (tensor * factor).requires_grad_()) for factor in (1.0, 1.5)
    )
    scale_distillation_loss(gather(LossConfig(), student, target, teacher)).backward()
    assert (student.scale.grad < 0).all()
    assert teacher.scale.grad is None
    assert student.depth.grad is None


def test_distillation_needs_a_teacher_in_training_only(make_scene):
    criterion = Criterion(LossConfig(weights=LossWeights(scale_distillation=1.0)))
    with pytest.raises(ConfigError, match=r"loss\.weights\.scale_distillation=1\.0: there is no teacher"):
        criterion(*make_scene(0))
    assert "scale_distillation" not in criterion.eval()(*make_scene(0))[1]
    prediction, target = make_scene(0)
    assert criterion.train()(prediction, target, teacher=prediction)[1]["scale_distillation"] == 0


# Rig consistency


def rig_scene(make_scene, predicted_trans, predicted_quat):
    """Three views, of which 0 and 2 sit 2 m apart on one car, 2 turned by 90 degrees."""
    prediction, target = make_scene(0, batch=1)
    quat = torch.tensor([[IDENTITY, IDENTITY, about_y(math.pi / 2)]])
    trans = torch.tensor([[[0.0, 0.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, -1.0]]])
    target = replace(target, agent=torch.tensor([[7, 3, 7]]), rig_pose=pose_from_quat_trans(quat, trans))
    prediction = replace(
        prediction, pose_trans=torch.tensor([predicted_trans]), pose_quat=torch.tensor([predicted_quat])
    )
    return prediction, target


def test_rig_loss_is_meters_plus_radians_between_the_cameras_of_one_car(make_scene):
    anywhere = [11.0, 12.0, 13.0]
    turned = about_y(math.pi / 2 + 0.2)
    scene = rig_scene(make_scene, [[0.0, 0, 0], anywhere, [0.0, 0.3, -2.4]], [IDENTITY, IDENTITY, turned])
    # T_0_2 is 0.3 m and 0.4 m off; T_2_0 is off by that and by how far 0.2 rad move a point at 2 m.
    forward = math.hypot(0.3, 0.4)
    predicted, true = math.pi / 2 + 0.2, math.pi / 2
    offset = (2.4 * math.sin(predicted) - 2 * math.sin(true), 2.4 * math.cos(predicted) - 2 * math.cos(true))
    backward = math.hypot(0.3, *offset)
    expected = [robust(forward) + robust(0.2), 0.0, robust(backward) + robust(0.2)]
    assert rig_loss(gather(LossConfig(), *scene)).tolist() == pytest.approx(expected, rel=1e-4)


def test_rig_loss_without_metric_samples_is_the_rotation_alone(make_scene):
    turned = about_y(math.pi / 2 + 0.2)
    prediction, target = rig_scene(make_scene, [[0.0, 0, 0]] * 3, [IDENTITY, IDENTITY, turned])
    loss = rig_loss(gather(LossConfig(), prediction, replace(target, is_metric=torch.tensor([False]))))
    assert loss.tolist() == pytest.approx([robust(0.2), 0.0, robust(0.2)], rel=1e-4)


def test_a_calibrated_rig_anywhere_scores_zero_with_finite_gradients(make_scene):
    turned = about_y(math.pi / 2)
    scene = rig_scene(make_scene, [[0.0, 0, 0], [9.0, 9, 9], [0.0, 0.0, -2.0]], [IDENTITY, IDENTITY, turned])
    prediction = scene[0].map(lambda tensor: tensor.requires_grad_())
    loss = rig_loss(gather(LossConfig(), prediction, scene[1]))
    torch.testing.assert_close(loss, torch.zeros(3), rtol=0, atol=1e-6)
    loss.sum().backward()
    assert prediction.pose_quat.grad.isfinite().all()
    assert prediction.pose_trans.grad.isfinite().all()


def test_same_car_pairs_views_within_a_sample():
    expected = torch.tensor([[[0, 0, 1], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]]).bool()
    assert torch.equal(same_car(torch.tensor([[4, 1, 4], [1, 2, 3]])), expected)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 1.0, 3.14])
@pytest.mark.parametrize("length", [-1.0, 1.0, 1.01])
def test_angle_between_quaternions(angle, length):
    a, b = torch.tensor(about_y(0.5)), length * torch.tensor(about_y(0.5 + angle))
    assert angle_between_quats(a, b).item() == pytest.approx(angle, abs=2e-6)


def test_rig_loss_needs_cameras_as_views(make_scene):
    criterion = Criterion(LossConfig(weights=LossWeights(rig=1.0)))
    with pytest.raises(ConfigError, match=r"loss\.weights\.rig=1\.0: .*Target\.agent and no Target\.rig_pose"):
        criterion(*make_scene(0))


# Height prior

GROUND_HEIGHT_M = torch.tensor([[1.9]])


def test_height_excess_below_a_falling_road_and_above_a_ceiling():
    # (right, down, forward) of points 10 m away, and one straight below the car
    points = torch.tensor([[6.0, 1.9, 8.0], [6.0, 4.0, 8.0], [6.0, -25.0, 8.0], [0.0, 2.0, 0.0]])
    excess = height_excess(points[None, None, None], None, GROUND_HEIGHT_M, slope=0.1, ceiling_m=20.0)
    torch.testing.assert_close(excess.flatten(), torch.tensor([0.0, 1.1, 5.0, 0.1]))
    assert height_excess(points[None, None, None], None, GROUND_HEIGHT_M, 0.1, None).flatten()[2] == 0


def test_height_excess_of_a_tilted_camera_is_measured_in_the_cars_frame():
    looking_down = [math.sin(-math.pi / 4), 0.0, 0.0, math.cos(math.pi / 4)]  # its forward is the car's down
    pose = pose_from_quat_trans(torch.tensor([[looking_down]]), torch.tensor([[[0.0, 0.5, 0.0]]]))
    excess = height_excess(torch.tensor([0.0, 0.0, 3.0]).view(1, 1, 1, 1, 3), pose, GROUND_HEIGHT_M, 0.1, None)
    assert excess.item() == pytest.approx(3.0 + 0.5 - 1.9)


def test_height_loss_is_over_covered_pixels_without_depth(make_scene):
    prediction, target = make_scene(0, batch=1, views=1, height=1, width=4)
    down = torch.tensor([[[[2.2, 9.0, 9.0, 0.0]]]])  # 0.3 m too deep, known, uncovered, fine
    points = torch.zeros(1, 1, 1, 4, 3)
    points[..., 1] = down
    target = replace(
        target,
        valid=torch.tensor([False, True, False, False]).view(1, 1, 1, 4),
        non_ambiguous=torch.tensor([True, True, False, True]).view(1, 1, 1, 4),
        ground_height_m=GROUND_HEIGHT_M,
    )
    cfg = LossConfig(height=HeightPrior(slope=0.1))
    prediction = replace(prediction, points_view=points)
    assert height_loss(gather(cfg, prediction, target)).item() == pytest.approx(robust(0.3) / 2, rel=1e-4)
    assert height_loss(gather(cfg, prediction, replace(target, is_metric=torch.tensor([False])))).item() == 0


def test_the_height_of_each_agents_lidar_counts(make_scene):
    """The same points, seen from a LiDAR 0.5 m higher, lie 0.5 m less deep."""
    prediction, target = make_scene(0, batch=1, views=2, height=1, width=1)
    points = torch.tensor([0.0, 2.5, 0.0]).expand(1, 2, 1, 1, 3)
    unknown = torch.zeros_like(target.valid)
    target = replace(target, valid=unknown, non_ambiguous=~unknown, ground_height_m=torch.tensor([[1.5, 2.0]]))
    inputs = gather(LossConfig(height=HeightPrior(slope=0.1)), replace(prediction, points_view=points), target)
    assert height_loss(inputs).tolist() == pytest.approx([robust(1.0), robust(0.5)], rel=1e-4)


def test_height_loss_needs_the_height_of_the_agents(make_scene):
    prediction, target = make_scene(0)
    criterion = Criterion(LossConfig(weights=LossWeights(height=1.0)))
    with pytest.raises(ConfigError, match=r"loss\.weights\.height=1\.0: .*Target\.ground_height_m"):
        criterion(prediction, replace(target, ground_height_m=None))


def test_height_loss_does_not_shrink_the_scene(make_scene):
    """The points move with the metric scale, and the scale gets none of the term's gradient."""
    prediction, target = make_scene(0, batch=1)
    scale = torch.tensor([2.0], requires_grad=True)
    raw = (prediction.points_view / 2).requires_grad_()
    grown = replace(prediction, scale=scale, points_view=raw * scale[:, None, None, None, None])
    height_loss(gather(LossConfig(), grown, target)).sum().backward()
    assert raw.grad.abs().max() > 0
    assert scale.grad.abs().item() < 1e-6 * raw.grad.abs().sum().item()


# Pixel factors


def test_pixel_factors_multiply_where_a_pixel_is_both(make_scene):
    _, target = make_scene(0, batch=1, views=1, height=1, width=4)
    moving = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)
    body = torch.tensor([True, False, True, False]).view(1, 1, 1, 4)
    cfg = LossConfig(weights_on=PixelFactors(moving_vehicles=0.5, own_body=0.25))
    factor = pixel_factor(replace(target, moving=moving, own_body=body), cfg)
    assert factor.flatten().tolist() == [0.125, 0.5, 0.25, 1.0]


def one_ray_scene(make_scene, depth, truth, moving):
    """One view whose points all lie straight ahead."""
    prediction, target = make_scene(0, batch=1, views=1, height=1, width=len(depth))
    rays = torch.tensor([0.0, 0.0, 1.0]).expand_as(target.rays)
    depth, truth = (torch.tensor(values).view(target.depth.shape) for values in (depth, truth))
    points = rays * depth[..., None]
    return replace(prediction, rays=rays, depth=depth, points_view=points, points_world=points), replace(
        target,
        rays=rays,
        depth=truth,
        valid=torch.ones_like(target.valid),
        moving=torch.tensor(moving).view(target.valid.shape),
    )


def test_factors_weigh_the_mean_and_the_normalization(make_scene):
    scene = one_ray_scene(make_scene, [2.0, 4.0], [2.0, 8.0], [False, True])
    cfg = LossConfig(weights_on=PixelFactors(moving_vehicles=0.5), view_scaling=False)
    terms = Criterion(cfg).train()(*scene)[1]
    unit, true_unit = (2 + 0.5 * 4) / 1.5, (2 + 0.5 * 8) / 1.5
    near = math.log1p(2 / unit) - math.log1p(2 / true_unit)
    far = math.log1p(4 / unit) - math.log1p(8 / true_unit)
    expected = (robust(near) + 0.5 * robust(far)) / 1.5
    assert terms["depth_along_ray_view1"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["scale"].item() == pytest.approx(robust(math.log1p(unit) - math.log1p(true_unit)), rel=1e-4)


def test_factor_zero_leaves_pixels_out_of_everything(make_scene):
    cfg = LossConfig(weights_on=PixelFactors(moving_vehicles=0.0))
    moving = [False, True, False]
    prediction, target = one_ray_scene(make_scene, [2.0, 400.0, 3.0], [2.0, 8.0, 4.0], moving)
    terms = Criterion(cfg).train()(prediction, target)[1]
    elsewhere, other_target = one_ray_scene(make_scene, [2.0, 7.0, 3.0], [2.0, 1.0, 4.0], moving)
    other = Criterion(cfg).train()(elsewhere, other_target)[1]
    assert other == terms
    # evaluation counts every pixel
    assert Criterion(cfg).eval()(prediction, target)[1] == Criterion(LossConfig()).eval()(prediction, target)[1]


def test_a_view_of_pixels_that_barely_count_still_has_its_mean(make_scene):
    scene = one_ray_scene(make_scene, [2.0, 4.0], [2.0, 8.0], [True, True])
    cfg = LossConfig(weights_on=PixelFactors(moving_vehicles=0.01))
    terms, expected = (Criterion(each).train()(*scene)[1] for each in (cfg, LossConfig()))
    torch.testing.assert_close(terms["depth_along_ray_view1"], expected["depth_along_ray_view1"])


@pytest.mark.parametrize(("key", "field"), [("moving_vehicles", "moving"), ("own_body", "own_body")])
def test_a_factor_needs_data_that_knows_its_pixels(make_scene, key, field):
    criterion = Criterion(LossConfig(weights_on=PixelFactors(**{key: 0.0})))
    with pytest.raises(ConfigError, match=rf"loss\.weights_on\.{key}=0\.0: .*Target\.{field}"):
        criterion(*make_scene(0))
