"""Measures over pixels: coverage mask, depth, metric scale. All unaligned."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from coopmap.losses.normalised import mean_distance, truth_in_view0
from coopmap.metrics.states import gathered, median
from coopmap.types import Prediction, Target

INLIER_RATIO = 1.03


def _add_count(metric: Metric, name: str) -> None:
    """Register a sum in double precision; float32 stops counting pixels at 16.7 million."""
    metric.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")


class MaskMeans(Metric):
    """Mean predicted and true coverage and their intersection over union, over all pixels.

    ``compute`` returns ``mask_pred_mean``, ``mask_true_mean`` and ``mask_iou`` of the mask ``logit > 0``, by which
    predicted points are kept or dropped. Nothing seen: NaN.
    """

    full_state_update = False
    predicted: Tensor
    true: Tensor
    both: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("predicted", "true", "both", "pixels"):
            _add_count(self, name)

    def update(self, mask_logits: Float[Tensor, "b v h w"], non_ambiguous: Bool[Tensor, "b v h w"]) -> None:
        """Add a batch."""
        covered = mask_logits > 0
        self.predicted += covered.sum()
        self.true += non_ambiguous.sum()
        self.both += (covered & non_ambiguous).sum()
        self.pixels += covered.numel()

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        return {
            "mask_pred_mean": (self.predicted / self.pixels).float(),
            "mask_true_mean": (self.true / self.pixels).float(),
            "mask_iou": (self.both / (self.predicted + self.true - self.both)).float(),
        }


class DepthError(Metric):
    """Absolute relative error and inlier ratio of the range along the ray, over valid pixels.

    ``compute`` returns ``depth_abs_rel`` and ``depth_inlier_103``, the share of pixels whose ratio to the truth is
    within a factor of 1.03. Means of each view, averaged over views with a valid pixel (as upstream's benchmark, but in
    metres, not normalised). No such view: NaN.
    """

    full_state_update = False
    abs_rel: Tensor
    inliers: Tensor
    views: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("abs_rel", "inliers", "views"):
            _add_count(self, name)

    def update(
        self,
        depth_pred: Float[Tensor, "b v h w"],
        depth_true: Float[Tensor, "b v h w"],
        valid: Bool[Tensor, "b v h w"],
    ) -> None:
        """Add a batch."""
        valid = valid & (depth_true > 0)
        true = torch.where(valid, depth_true, 1.0)
        predicted = depth_pred.detach().to(true.dtype)
        count = valid.sum(dim=(-2, -1))
        error = ((predicted - true).abs() / true).masked_fill(~valid, 0.0).sum(dim=(-2, -1))
        inlier = (predicted < INLIER_RATIO * true) & (true < INLIER_RATIO * predicted) & valid
        self.abs_rel += (error / count.clamp(min=1)).sum()
        self.inliers += (inlier.sum(dim=(-2, -1)) / count.clamp(min=1)).sum()
        self.views += (count > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        return {
            "depth_abs_rel": (self.abs_rel / self.views).float(),
            "depth_inlier_103": (self.inliers / self.views).float(),
        }


class ScaleError(Metric):
    """Ratio of predicted to true mean distance of the valid points from view 0, per metric sample.

    ``compute`` returns ``scale_ratio_mean``, ``scale_ratio_median`` and ``scale_abs_rel``, the mean of ``|ratio - 1|``.
    No metric sample with a valid point: NaN.
    """

    full_state_update = False
    ratios: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("ratios", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Prediction, target: Target) -> None:
        """Add a batch. Samples that do not count are kept as NaN, so that nothing waits for the device."""
        true = mean_distance(truth_in_view0(target).points_world, target.valid)
        predicted = mean_distance(prediction.points_world.detach().float(), target.valid)
        counts = target.is_metric & target.valid.flatten(1).any(dim=1)
        self.ratios.append(torch.where(counts, predicted / true, torch.nan))

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        ratios = gathered(self.ratios, self.device)
        return {
            "scale_ratio_mean": ratios.nanmean(),
            "scale_ratio_median": median(ratios),
            "scale_abs_rel": (ratios - 1).abs().nanmean(),
        }
