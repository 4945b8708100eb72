"""From raw head outputs to metric geometry, and predictions with other poses."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.se3 import pose_from_quat_trans, transform_points
from coopmap.models.heads import DENSE_CHANNELS
from coopmap.types import Prediction


def decode(
    dense: Float[Tensor, "b v 6 h w"],
    trans: Float[Tensor, "b v 3"],
    quat: Float[Tensor, "b v 4"],
    log_scale: Float[Tensor, " b"],
) -> Prediction:
    """Turn raw head outputs into metric geometry (upstream's adaptors)."""
    rays, log_depth, log_confidence, mask_logits = dense.split(DENSE_CHANNELS, dim=2)
    rays = _normalize(rays.movedim(2, -1))
    scale = log_scale.exp().clamp(min=1e-8)
    depth = log_depth[:, :, 0].exp() * scale[:, None, None, None]
    quat = _normalize(quat)
    trans = trans * scale[:, None, None]
    points_view = rays * depth[..., None]
    return Prediction(
        rays=rays,
        depth=depth,
        pose_trans=trans,
        pose_quat=quat,
        scale=scale,
        confidence=1 + log_confidence[:, :, 0].exp(),
        mask_logits=mask_logits[:, :, 0],
        points_view=points_view,
        points_world=_moved(points_view, quat, trans),
    )


def with_poses(prediction: Prediction, quat: Float[Tensor, "b v 4"], trans: Float[Tensor, "b v 3"]) -> Prediction:
    """The prediction with other poses of its views: ``points_world`` follows."""
    points = _moved(prediction.points_view, quat, trans)
    return replace(prediction, pose_quat=quat, pose_trans=trans, points_world=points)


def _moved(
    points: Float[Tensor, "b v h w 3"], quat: Float[Tensor, "b v 4"], trans: Float[Tensor, "b v 3"]
) -> Float[Tensor, "b v h w 3"]:
    return transform_points(pose_from_quat_trans(quat, trans), points.flatten(2, 3)).view_as(points)


def _normalize(vectors: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-8)
