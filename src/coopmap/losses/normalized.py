"""Prediction and ground truth in one frame and one unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry import quat_trans_from_pose, relative_pose, transform_points
from coopmap.types import Prediction, Target

SMALLEST_DISTANCE = 1e-8


@dataclass(frozen=True)
class Geometry:
    """Factored geometry of a sample, poses and world points in view 0's frame.

    Attributes:
        points_world: points in view 0's frame.
        points_view: points in their own view's frame.
        depth: range along ``rays``.
        rays: unit rays, view frame.
        quat: ``T_view0_view``, ``(x, y, z, w)``.
        trans: position in view 0's frame.
    """

    points_world: Float[Tensor, "b v h w 3"]
    points_view: Float[Tensor, "b v h w 3"]
    depth: Float[Tensor, "b v h w"]
    rays: Float[Tensor, "b v h w 3"]
    quat: Float[Tensor, "b v 4"]
    trans: Float[Tensor, "b v 3"]


@dataclass(frozen=True)
class Normalized:
    """Geometry in units of a length per view; rays and rotations stay.

    Maps are divided where they are asked for: a term that is computed again in the backward pass then keeps none.
    """

    metric: Geometry
    unit_m: Float[Tensor, "b v"]

    @property
    def points_world(self) -> Float[Tensor, "b v h w 3"]:
        """Points in view 0's frame."""
        return self.metric.points_world / self.unit_m[..., None, None, None]

    @property
    def points_view(self) -> Float[Tensor, "b v h w 3"]:
        """Points in their own view's frame."""
        return self.metric.points_view / self.unit_m[..., None, None, None]

    @property
    def depth(self) -> Float[Tensor, "b v h w"]:
        """Range along the rays."""
        return self.metric.depth / self.unit_m[..., None, None]

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
        weight: how much each pixel counts; 0 where depth is unknown.
        predicted_distance_m: mean distance of the metric prediction; only the metric scale receives its gradient.
        true_distance_m: mean distance of the ground truth.
        has_metric_distance: metric samples with some known depth.
    """

    prediction: Normalized
    truth: Normalized
    weight: Float[Tensor, "b v h w"]
    predicted_distance_m: Float[Tensor, " b"]
    true_distance_m: Float[Tensor, " b"]
    has_metric_distance: Bool[Tensor, " b"]


def mean_distance(
    points: Float[Tensor, "b v h w 3"], weight: Bool[Tensor, "b v h w"] | Float[Tensor, "b v h w"]
) -> Float[Tensor, " b"]:
    """Mean distance to the origin of the points of all views (upstream ``avg_dis``), at least 1e-8.

    Samples in which no point counts get 1, so that whatever is divided by it stays harmless.
    """
    return _mean_range(torch.linalg.vector_norm(points, dim=-1), weight)


def _mean_range(ranges: Float[Tensor, "b v h w"], weight: Tensor) -> Float[Tensor, " b"]:
    total = weight.sum(dim=(1, 2, 3))
    counted = total > 0
    mean = (ranges * weight).sum(dim=(1, 2, 3)) / torch.where(counted, total, 1)
    return torch.where(counted, mean.clamp(min=SMALLEST_DISTANCE), 1.0)


def truth_in_view0(target: Target) -> Geometry:
    """Ground truth moved from the world into view 0's frame, in meters.

    Relative poses are formed in double precision: scenario coordinates run to hundreds of meters.
    """
    pose = relative_pose(target.pose[:, :1].double(), target.pose.double()).to(target.depth.dtype)
    points_view = target.points_view
    quat, trans = quat_trans_from_pose(pose)
    return Geometry(
        points_world=transform_points(pose, points_view.flatten(2, 3)).view_as(points_view),
        points_view=points_view,
        depth=target.depth,
        rays=target.rays,
        quat=quat,
        trans=trans,
    )


def metric_unit(prediction: Prediction) -> Float[Tensor, "b v"]:
    """1, with the gradient of the metric scale: lengths times it teach the scale, lengths over it do not."""
    scale = prediction.scale.reshape(prediction.depth.shape[0], -1).expand(prediction.depth.shape[:2])
    return scale / scale.detach()


def normalize(prediction: Prediction, target: Target, factor: Float[Tensor, "b v h w"]) -> NormalizedPair:
    """Divide both sides by their mean distance, in which each pixel with known depth counts by ``factor``.

    Upstream divides the raw network output, before the metric scale. The scale cancels in the quotient, so only its
    gradient is taken out here.
    """
    weight = target.valid * factor
    truth = truth_in_view0(target)
    true_distance = mean_distance(truth.points_world, weight)
    geometry = Geometry(
        points_world=prediction.points_world,
        points_view=prediction.points_view,
        depth=prediction.depth,
        rays=prediction.rays,
        quat=prediction.pose_quat,
        trans=prediction.pose_trans,
    )
    unit = metric_unit(prediction)
    ranges = torch.linalg.vector_norm(prediction.points_world, dim=-1)
    raw_distance = _mean_range(ranges / unit[..., None, None], weight)
    return NormalizedPair(
        prediction=Normalized(geometry, raw_distance[:, None] * unit),
        truth=Normalized(truth, true_distance[:, None].expand_as(unit)),
        weight=weight,
        predicted_distance_m=_mean_range(ranges.detach() * unit[..., None, None], weight),
        true_distance_m=true_distance,
        has_metric_distance=target.is_metric & (weight > 0).flatten(1).any(-1) & (true_distance > SMALLEST_DISTANCE),
    )
