"""Prediction and ground truth in one frame and one unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.losses.blocks import length, planes, sum_rows
from coopmap.types import SMALLEST_DISTANCE, Geometry, Prediction, Target, truth_in_view0


@dataclass(frozen=True)
class Normalized:
    """Geometry in units of one length per view; rays and rotations are unchanged."""

    metric: Geometry
    unit_m: Float[Tensor, "b v"]

    @property
    def points_world(self) -> Float[Tensor, "b v h w 3"]:
        """Points in view 0's frame."""
        return self.metric.points_world / self.unit_m[..., None, None, None]

    @property
    def quat(self) -> Float[Tensor, "b v 4"]:
        """``T_view0_view``, ``(x, y, z, w)``."""
        return self.metric.quat

    @property
    def trans(self) -> Float[Tensor, "b v 3"]:
        """Position in view 0's frame."""
        return self.metric.trans / self.unit_m[..., None]


@dataclass(frozen=True)
class NormalizedPair:
    """Prediction and truth, each divided by its own mean point distance.

    Attributes:
        prediction: normalized; the metric scale has canceled.
        truth: normalized ground truth.
        weight: of each pixel; 0 where depth is unknown.
        shared_weight: the same, 0 in foreign views too, whose points are not in the mean distances.
        predicted_distance_m: mean distance of the metric prediction; only the metric scale receives its gradient.
        true_distance_m: mean distance of the ground truth.
        has_metric_distance: metric samples with some known depth.
    """

    prediction: Normalized
    truth: Normalized
    weight: Float[Tensor, "b v h w"]
    shared_weight: Float[Tensor, "b v h w"]
    predicted_distance_m: Float[Tensor, " b"]
    true_distance_m: Float[Tensor, " b"]
    has_metric_distance: Bool[Tensor, " b"]


def metric_unit(prediction: Prediction) -> Float[Tensor, "b v"]:
    """1, with the gradient of the metric scale: multiply by it to train the scale, divide to drop its gradient."""
    scale = prediction.scale.reshape(prediction.depth.shape[0], -1).expand(prediction.depth.shape[:2])
    return scale / scale.detach()


def normalize(prediction: Prediction, target: Target, factor: Float[Tensor, "b v h w"]) -> NormalizedPair:
    """Divide both sides by their mean distance, in which each pixel with known depth is weighted by ``factor``.

    Foreign views do not count, but are divided by it too: a prediction has one scale.

    Upstream divides the raw network output, before the metric scale. The scale cancels in the quotient, so only its
    gradient is removed here.
    """
    weight = target.valid * factor
    shared = weight if target.foreign is None else weight * ~target.foreign[..., None, None]
    total = shared.sum(dim=(1, 2, 3))
    truth = truth_in_view0(target)
    (true_sums,) = sum_rows(_ranges, (truth.points_world, shared))
    true_distance = _mean(true_sums, total)
    geometry = Geometry(
        points_world=prediction.points_world,
        points_view=prediction.points_view,
        depth=prediction.depth,
        rays=prediction.rays,
        quat=prediction.pose_quat,
        trans=prediction.pose_trans,
    )
    unit = metric_unit(prediction)
    (sums,) = sum_rows(_ranges, (prediction.points_world, shared))
    return NormalizedPair(
        prediction=Normalized(geometry, _mean(sums / unit, total)[:, None] * unit),
        truth=Normalized(truth, true_distance[:, None].expand_as(unit)),
        weight=weight,
        shared_weight=shared,
        predicted_distance_m=_mean(sums.detach() * unit, total),
        true_distance_m=true_distance,
        has_metric_distance=target.is_metric & (shared > 0).flatten(1).any(-1) & (true_distance > SMALLEST_DISTANCE),
    )


def _ranges(points: Float[Tensor, "n w 3"], weight: Float[Tensor, "n w"]) -> Float[Tensor, " n"]:
    """Weighted sum of the distances to the origin."""
    return (length(planes(points)) * weight).sum(dim=-1)


def _mean(sums: Float[Tensor, "b v"], total: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """:func:`coopmap.types.mean_distance` from sums over the views' points."""
    counted = total > 0
    mean = sums.sum(dim=1) / torch.where(counted, total, 1.0)
    return torch.where(counted, mean.clamp(min=SMALLEST_DISTANCE), 1.0)
