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

    def divided_by(self, length: Float[Tensor, "b v"]) -> Geometry:
        """Geometry in units of ``length``; rays and rotations stay."""
        pixel, vector = length[..., None, None], length[..., None, None, None]
        return Geometry(
            points_world=self.points_world / vector,
            points_view=self.points_view / vector,
            depth=self.depth / pixel,
            rays=self.rays,
            quat=self.quat,
            trans=self.trans / length[..., None],
        )


@dataclass(frozen=True)
class NormalisedPair:
    """Prediction and truth, each divided by its own mean point distance.

    Attributes:
        prediction: raw network output (before the metric scale), normalised.
        truth: normalised ground truth.
        valid: pixels with known depth.
        predicted_distance_m: mean distance of the metric prediction; only the metric scale receives its gradient.
        true_distance_m: mean distance of the ground truth.
        has_metric_distance: metric samples with some known depth.
    """

    prediction: Geometry
    truth: Geometry
    valid: Bool[Tensor, "b v h w"]
    predicted_distance_m: Float[Tensor, " b"]
    true_distance_m: Float[Tensor, " b"]
    has_metric_distance: Bool[Tensor, " b"]


def mean_distance(points: Float[Tensor, "b v h w 3"], valid: Bool[Tensor, "b v h w"]) -> Float[Tensor, " b"]:
    """Mean distance to the origin of the valid points of all views (upstream ``avg_dis``), at least 1e-8.

    Samples without a valid point get 1, so that whatever is divided by it stays harmless.
    """
    distance = (torch.linalg.vector_norm(points, dim=-1) * valid).sum(dim=(1, 2, 3))
    count = valid.sum(dim=(1, 2, 3))
    return torch.where(count > 0, (distance / count.clamp(min=1)).clamp(min=SMALLEST_DISTANCE), 1.0)


def truth_in_view0(target: Target) -> Geometry:
    """Ground truth moved from the world into view 0's frame, in metres.

    Relative poses are formed in double precision: scenario coordinates run to hundreds of metres.
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


def normalise(prediction: Prediction, target: Target) -> NormalisedPair:
    """Take the metric scale out of the prediction, then divide both sides by their mean distance."""
    valid = target.valid
    batch, views = valid.shape[:2]
    scale = prediction.scale.reshape(batch, -1).expand(batch, views)
    raw = Geometry(
        points_world=prediction.points_world,
        points_view=prediction.points_view,
        depth=prediction.depth,
        rays=prediction.rays,
        quat=prediction.pose_quat,
        trans=prediction.pose_trans,
    ).divided_by(scale)
    truth = truth_in_view0(target)
    true_distance = mean_distance(truth.points_world, valid)
    raw_distance = mean_distance(raw.points_world, valid)
    metric_points = raw.points_world.detach() * scale[..., None, None, None]
    return NormalisedPair(
        prediction=raw.divided_by(raw_distance[:, None].expand_as(scale)),
        truth=truth.divided_by(true_distance[:, None].expand_as(scale)),
        valid=valid,
        predicted_distance_m=mean_distance(metric_points, valid),
        true_distance_m=true_distance,
        has_metric_distance=target.is_metric & valid.flatten(1).any(-1) & (true_distance > SMALLEST_DISTANCE),
    )
