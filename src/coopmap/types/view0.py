"""The frame in which predictions and ground truth are compared: view 0, the reference agent."""

from __future__ import annotations

from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.se3 import quat_trans_from_pose, relative_pose, transform_points
from coopmap.types.records import Prediction, Target

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


def mean_distance(
    points: Float[Tensor, "b v h w 3"], weight: Bool[Tensor, "b v h w"] | Float[Tensor, "b v h w"]
) -> Float[Tensor, " b"]:
    """Mean distance to the origin of the points of all views (upstream ``avg_dis``), at least 1e-8.

    Samples in which no point counts get 1, so that whatever is divided by it stays harmless.
    """
    return mean_range(torch.linalg.vector_norm(points, dim=-1), weight)


def mean_range(ranges: Float[Tensor, "b v h w"], weight: Tensor) -> Float[Tensor, " b"]:
    """:func:`mean_distance` of points whose distances are known."""
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


def prediction_in_view0(prediction: Prediction) -> Prediction:
    """The prediction moved rigidly to the frame of its own view 0, whose pose becomes the identity.

    For models that are free to predict in any frame (upstream ``convert_predictions_to_view0_frame``). Geometry in the
    views' own frames and lengths stay as they are; the metric scale keeps its gradient.
    """
    quat, trans = prediction.pose_quat[:, :1], prediction.pose_trans[:, :1]
    inverse = roma.quat_inverse(quat)
    points = prediction.points_world
    rotation = roma.unitquat_to_rotmat(torch.nn.functional.normalize(quat[:, 0], dim=-1))
    moved = (points.flatten(1, 3) - trans) @ rotation  # points are rows: this is the inverse rotation
    return replace(
        prediction,
        pose_quat=roma.quat_product(inverse, prediction.pose_quat),
        pose_trans=roma.quat_action(inverse, prediction.pose_trans - trans),
        points_world=moved.view_as(points),
    )
