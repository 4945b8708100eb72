import pytest
import torch

from coopmap.metrics import DepthError, MaskMeans, ScaleError
from coopmap.types import Prediction, Target


def values(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_mask_means_and_iou():
    metric = MaskMeans()
    metric.update(
        torch.tensor([3.0, 0.1, -2.0, -0.1]).view(1, 1, 2, 2), torch.tensor([1, 0, 1, 0]).view(1, 1, 2, 2) > 0
    )
    metric.update(torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool))
    assert values(metric) == pytest.approx({"mask_pred_mean": 5 / 8, "mask_true_mean": 6 / 8, "mask_iou": 4 / 7})


def test_depth_error_is_a_mean_of_views():
    metric = DepthError()
    true = torch.tensor([[[[10.0, 20.0, 0.0, 5.0]], [[10.0, 10.0, 10.0, 10.0]], [[8.0, 8.0, 8.0, 8.0]]]])
    predicted = torch.tensor([[[[10.2, 10.0, 7.0, 99.0]], [[9.0, 0.0, 10.0, 10.2]], [[0.0, 0.0, 0.0, 0.0]]]])
    valid = torch.tensor([[[[True, True, True, False]], [[True, True, True, True]], [[False] * 4]]])
    metric.update(predicted, true, valid)
    abs_rel = ((0.02 + 0.5) / 2 + (0.1 + 1.0 + 0.0 + 0.02) / 4) / 2
    assert values(metric) == pytest.approx({"depth_abs_rel": abs_rel, "depth_inlier_103": (1 / 2 + 2 / 4) / 2})


def test_depth_inliers_are_symmetric_about_the_truth():
    metric = DepthError()
    true = torch.full((1, 1, 1, 4), 100.0)
    predicted = torch.tensor([102.9, 103.1, 97.2, 97.0]).view(1, 1, 1, 4)
    metric.update(predicted, true, true > 0)
    assert metric.compute()["depth_inlier_103"] == 0.5


def scale_records(lengths, is_metric, valid):
    """Samples of one view and two points at distance 10 whose prediction lies at ``lengths``."""
    batch = len(lengths)
    points = torch.tensor(lengths)[:, None, None, None, None] * torch.tensor([0.0, 0.0, 1.0])
    points = points.expand(batch, 1, 1, 2, 3)
    pixels = torch.ones(batch, 1, 1, 2)
    rays = torch.tensor([0.0, 0.0, 1.0]).expand_as(points)
    prediction = Prediction(
        rays=rays,
        depth=pixels,
        pose_trans=torch.zeros(batch, 1, 3),
        pose_quat=torch.tensor([0.0, 0, 0, 1]).expand(batch, 1, 4),
        scale=torch.ones(batch),
        confidence=pixels,
        mask_logits=pixels,
        points_view=points,
        points_world=points,
    )
    target = Target(
        rays=rays,
        depth=10 * pixels,
        valid=torch.tensor(valid)[:, None, None, None].expand(batch, 1, 1, 2),
        non_ambiguous=pixels > 0,
        pose=torch.eye(4).expand(batch, 1, 4, 4),
        is_metric=torch.tensor(is_metric),
        is_synthetic=torch.tensor([False] * batch),
    )
    return prediction, target


def test_scale_error_counts_metric_samples_with_depth():
    metric = ScaleError()
    metric.update(*scale_records([5.0, 12.0, 20.0, 70.0], [True, True, True, False], [True, True, True, True]))
    metric.update(*scale_records([90.0], [True], [False]))
    expected = {"scale_ratio_mean": 3.7 / 3, "scale_ratio_median": 1.2, "scale_abs_rel": 1.7 / 3}
    assert values(metric) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("metric_class", [MaskMeans, DepthError, ScaleError])
def test_nothing_seen_is_nan(metric_class):
    assert all(value.isnan() for value in metric_class().compute().values())


def test_scale_error_without_a_sample_that_counts_is_nan():
    metric = ScaleError()
    metric.update(*scale_records([5.0], [False], [True]))
    assert all(value.isnan() for value in metric.compute().values())


def test_half_precision_predictions_are_accepted():
    depth, mask = DepthError(), MaskMeans()
    true = torch.full((1, 1, 2, 2), 4.0)
    depth.update(true.bfloat16(), true, true > 0)
    mask.update(true.bfloat16(), true > 0)
    assert depth.compute()["depth_abs_rel"] == 0
    assert mask.compute()["mask_iou"] == 1
