"""Upstream's objective, for ``coopmap bench loss`` where upstream can be imported."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coopmap.geometry import quat_trans_from_pose, transform_points
from coopmap.types import Prediction, Target

_GEOMETRY = """RobustRegressionLoss(alpha=0.5, scaling_c=0.05), norm_mode="avg_dis", loss_in_log=True,
    depth_type_for_loss="depth_along_ray", flatten_across_image_only=True, compute_world_frame_points_loss=True,
    apply_normal_and_gm_loss_to_synthetic_data_only=True"""
_PIXELS = """conf_alpha=0.2, top_n_percent=5, apply_to_real_data_only=True, conf_loss_set_indices=[0],
    exclude_loss_set_indices=[1, 2]"""
UPSTREAM = {
    "overall": f"""ConfAndExcludeTopNPercentPixelLoss(FactoredGeometryScaleRegr3DPlusNormalGMLoss({_GEOMETRY},
    normal_loss_weight=3.0, gm_loss_weight=3.0), {_PIXELS}) + 0.3 * NonAmbiguousMaskLoss(BCELoss())""",
    "v11": f"""ConfAndExcludeTopNPercentPixelLoss(FactoredGeometryScaleRegr3DPlusNormalGMLoss({_GEOMETRY},
    compute_pairwise_relative_pose_loss=True, cam_frame_points_loss_weight=0.1, depth_loss_weight=0.1,
    ray_directions_loss_weight=0.1, pose_quats_loss_weight=0.1, pose_trans_loss_weight=0.1, scale_loss_weight=0.1,
    normal_loss_weight=0.3, gm_loss_weight=0.3), {_PIXELS}) + 0.03 * NonAmbiguousMaskLoss(BCELoss())""",
}
"""Upstream's expression of choices of conf/loss (its configs/loss/overall_loss.yaml and
overall_loss_highpm_plus_rel_pose.yaml)."""

Criterion = Callable[[list[dict[str, Tensor]], list[dict[str, Tensor]]], Any]


def upstream_criterion(loss: str) -> Criterion | None:
    """Upstream's objective of that name; ``None`` if it has none or is not installed."""
    if loss not in UPSTREAM:
        return None
    try:
        module = importlib.import_module("mapanything.train.losses")
    except ImportError:
        return None
    names = set(re.findall(r"\b[A-Z]\w+(?=\()", UPSTREAM[loss]))
    return eval(UPSTREAM[loss], {name: getattr(module, name) for name in names})  # upstream's own way to configure it


def time_upstream(
    criterion: Criterion, prediction: Prediction, target: Target, clock: Callable[[], float], wait: Callable[[], None]
) -> float:
    """Seconds of a forward and a backward pass."""
    batch, leaves = _views_of_truth(target), _views_of_prediction(prediction)
    wait()
    started = clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        criterion(batch, leaves)[0].backward()
    wait()
    return clock() - started


def _views_of_truth(target: Target) -> list[dict[str, Tensor]]:
    quat, trans = quat_trans_from_pose(target.pose)
    points = target.points_view
    world = transform_points(target.pose, points.flatten(2, 3)).view_as(points)
    return [
        {
            "camera_pose": target.pose[:, view],
            "camera_pose_quats": quat[:, view],
            "camera_pose_trans": trans[:, view],
            "pts3d": world[:, view].contiguous(),
            "pts3d_cam": points[:, view].contiguous(),
            "ray_directions_cam": target.rays[:, view].contiguous(),
            "depth_along_ray": target.depth[:, view, ..., None].contiguous(),
            "valid_mask": target.valid[:, view].contiguous(),
            "non_ambiguous_mask": target.non_ambiguous[:, view].contiguous(),
            "is_metric_scale": target.is_metric,
            "is_synthetic": target.is_synthetic,
        }
        for view in range(target.depth.shape[1])
    ]


def _views_of_prediction(prediction: Prediction) -> list[dict[str, Tensor]]:
    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone(memory_format=torch.contiguous_format).requires_grad_()

    return [
        {
            "pts3d": leaf(prediction.points_world[:, view]),
            "pts3d_cam": leaf(prediction.points_view[:, view]),
            "ray_directions": leaf(prediction.rays[:, view]),
            "depth_along_ray": leaf(prediction.depth[:, view, ..., None]),
            "cam_trans": leaf(prediction.pose_trans[:, view]),
            "cam_quats": leaf(prediction.pose_quat[:, view]),
            "metric_scaling_factor": leaf(prediction.scale[:, None]),
            "conf": leaf(prediction.confidence[:, view]),
            "non_ambiguous_mask_logits": leaf(prediction.mask_logits[:, view]),
        }
        for view in range(prediction.depth.shape[1])
    ]
