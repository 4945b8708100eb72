import math

import pytest
import torch

from coopmap.metrics.dense import MOTION_NAMES


def of_subject(figures, subject):
    """``mask``, ``depth``, ``scale`` or ``motion``."""
    motion = {name for name in figures if name in MOTION_NAMES}
    return {
        name: value
        for name, value in figures.items()
        if (name in motion if subject == "motion" else name.startswith(subject) and name not in motion)
    }


def test_mask_means_and_iou_are_means_of_samples(records):
    covered = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1]]).view(2, 1, 2, 2) > 0
    target = records.target(torch.ones(2, 1, 2, 2), non_ambiguous=covered)
    logits = torch.tensor([[3.0, 0.1, -2.0, -0.1], [1.0, 1.0, 1.0, 0.0]]).view(2, 1, 2, 2)
    figures = of_subject(records.figures((records.prediction(target, mask_logits=logits), target)), "mask")
    assert figures == pytest.approx({"mask_pred_mean": 5 / 8, "mask_true_mean": 6 / 8, "mask_iou": (1 / 3 + 3 / 4) / 2})


def test_depth_error_is_a_mean_of_views(records):
    true = torch.tensor([[[[10.0, 20.0, 0.0, 5.0]], [[10.0, 10.0, 10.0, 10.0]], [[8.0, 8.0, 8.0, 8.0]]]])
    predicted = torch.tensor([[[[10.2, 10.0, 7.0, 99.0]], [[9.0, 0.0, 10.0, 10.2]], [[0.0, 0.0, 0.0, 0.0]]]])
    valid = torch.tensor([[[[True, True, True, False]], [[True, True, True, True]], [[False] * 4]]])
    target = records.target(true, valid=valid)
    figures = of_subject(records.figures((records.prediction(target, depth=predicted), target)), "depth")
    abs_rel = ((0.02 + 0.5) / 2 + (0.1 + 1.0 + 0.0 + 0.02) / 4) / 2
    expected = {
        "depth_abs_rel": abs_rel,
        "depth_inlier_103": (1 / 2 + 2 / 4) / 2,
        "depth_inlier_125": (1 / 2 + 3 / 4) / 2,
        "depth_abs_rel_10_20m": (0.02 + 0.1 + 1.0 + 0.0 + 0.02) / 5,
        "depth_inlier_125_10_20m": 4 / 5,
        "depth_abs_rel_20_40m": 0.5,
        "depth_inlier_125_20_40m": 0.0,
    }
    assert figures == pytest.approx(expected)


def test_depth_inliers_are_symmetric_about_the_truth(records):
    target = records.target(torch.full((1, 1, 1, 4), 100.0))
    predicted = torch.tensor([102.9, 103.1, 97.2, 97.0]).view(1, 1, 1, 4)
    figures = of_subject(records.figures((records.prediction(target, depth=predicted), target)), "depth")
    assert figures["depth_inlier_103"] == 0.5


def test_scale_error_counts_metric_samples_with_depth(records):
    true = torch.full((5, 1, 1, 2), 10.0)
    valid = torch.tensor([True, True, True, True, False])[:, None, None, None].expand_as(true)
    target = records.target(true, valid=valid, is_metric=torch.tensor([True, True, True, False, True]))
    predicted = torch.tensor([5.0, 12.0, 20.0, 70.0, 90.0])[:, None, None, None].expand_as(true)
    figures = of_subject(records.figures((records.prediction(target, depth=predicted), target)), "scale")
    expected = {"scale_ratio_mean": 3.7 / 3, "scale_ratio_median": 1.2, "scale_abs_rel": 1.7 / 3}
    assert figures == pytest.approx(expected | {"scale_ratio_10_20m": 3.7 / 3})


def test_scale_per_range_is_a_ratio_of_means(records):
    target = records.target(torch.tensor([4.0, 6.0, 30.0, 50.0]).view(1, 2, 1, 2))
    predicted = torch.tensor([6.0, 6.0, 15.0, 100.0]).view(1, 2, 1, 2)
    figures = of_subject(records.figures((records.prediction(target, depth=predicted), target)), "scale")
    assert figures["scale_ratio_0_10m"] == pytest.approx(1.2)
    assert figures["scale_ratio_20_40m"] == pytest.approx(0.5)
    assert figures["scale_ratio_40_80m"] == pytest.approx(2.0)
    assert "scale_ratio_10_20m" not in figures
    assert "scale_ratio_over_80m" not in figures


def test_moving_vehicles_static_world_and_own_body_apart(records):
    moving = torch.tensor([True, True, False, False, True, False]).view(1, 1, 1, 6)
    own = torch.tensor([False, False, False, False, True, False]).view(1, 1, 1, 6)
    valid = torch.tensor([True, False, True, True, True, True]).view(1, 1, 1, 6)
    target = records.target(torch.full((1, 1, 1, 6), 10.0), valid=valid, moving=moving, own_body=own)
    predicted = torch.tensor([13.0, 99.0, 11.0, 10.0, 5.0, 10.5]).view(1, 1, 1, 6)
    figures = of_subject(records.figures((records.prediction(target, depth=predicted), target)), "motion")
    expected = {
        "moving_share": 1 / 5,
        "depth_abs_rel_moving": 0.3,
        "points_m_moving": 3.0,
        "depth_abs_rel_static": 0.05,
        "points_m_static": 0.5,
        "depth_abs_rel_own_body": 0.5,
        "points_m_own_body": 5.0,
    }
    assert figures == pytest.approx(expected)


def test_points_on_moving_vehicles_feel_the_pose_and_their_depth_does_not(records):
    pose = torch.stack([records.yaw_pose(0, 0.0, 0, 0), records.yaw_pose(90, 20.0, 0, 0)])[None]
    wrong = torch.stack([records.yaw_pose(0, 0.0, 0, 0), records.yaw_pose(90, 23.0, 4.0, 0)])[None]
    target = records.target(torch.full((1, 2, 1, 2), 10.0), pose=pose, moving=torch.tensor([[[[False, True]]] * 2]))
    figures = of_subject(records.figures((records.prediction(target, pose=wrong), target)), "motion")
    assert figures["points_m_moving"] == pytest.approx(5.0 / 2)
    assert figures["depth_abs_rel_moving"] == 0


def test_motion_is_absent_where_the_data_does_not_tell(records):
    target = records.target(torch.full((1, 1, 1, 2), 10.0))
    figures = of_subject(records.figures((records.prediction(target), target)), "motion")
    assert figures == {}


def test_pixels_of_unknown_depth_define_nothing(records):
    target = records.target(torch.full((1, 2, 2, 2), 5.0), valid=torch.zeros(1, 2, 2, 2, dtype=torch.bool))
    figures = records.figures((records.prediction(target), target))
    for subject, number in (("depth", 3), ("scale", 3)):
        undefined = of_subject(figures, subject)
        assert len(undefined) == number
        assert all(math.isnan(value) for value in undefined.values())


def test_half_precision_predictions_are_accepted(records):
    target = records.target(torch.full((1, 1, 2, 2), 4.0))
    figures = records.figures((records.prediction(target).map(torch.Tensor.bfloat16), target))
    assert (figures["depth_abs_rel"], figures["mask_iou"], figures["scale_abs_rel"]) == (0, 1, 0)
