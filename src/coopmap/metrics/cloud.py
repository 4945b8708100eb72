"""Predicted and true fused point clouds compared: Chamfer distance and bird's-eye-view occupancy."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.geometry.rig import OPV2V_LIDAR_HEIGHT_M
from coopmap.types import Prediction, Target, truth_in_view0
from coopmap.types.agents import in_reference_agent

QUERY_POINTS = 4096
REFERENCE_POINTS = 32768
CELL_M = 0.5
MIN_HEIGHT_M, MAX_HEIGHT_M = -1.0, 4.2
"""Range of heights, above the ground under the reference agent."""
RADIUS_M = 120.0
"""Largest horizontal distance from the reference agent."""
CLOUD_NAMES = ("chamfer_m", "chamfer_pred_to_true_m", "chamfer_true_to_pred_m", "bev_iou")

_CHUNK = 1024
"""Queries at a time, so that their distances to all references fit on a GPU."""


def is_near(
    points: Float[Tensor, "*b 3"], ground_height_m: Tensor | float = OPV2V_LIDAR_HEIGHT_M
) -> Bool[Tensor, "*b"]:
    """Which points count, by their place around the reference agent; only finite ones.

    Args:
        points: in the reference agent's frame, y down.
        ground_height_m: of the origin of that frame above the ground.
    """
    height = ground_height_m - points[..., 1]
    near = torch.hypot(points[..., 0], points[..., 2]) < RADIUS_M
    return near & (height >= MIN_HEIGHT_M) & (height <= MAX_HEIGHT_M)


def cloud_figures(prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """Compare the points of all views, in the reference agent's frame, without alignment.

    Both clouds hold the pixels with known depth; each is filtered by its own coordinates. ``chamfer_pred_to_true_m`` is
    the mean distance of predicted points to the nearest true point, ``chamfer_true_to_pred_m`` the reverse,
    ``chamfer_m`` the mean of the two: from 4,096 points to 32,768, at random but fixed pixels. ``bev_iou`` is the
    intersection over union of the cells of 0.5 m, in the horizontal plane, that contain a point.

    Without a true point there is nothing to measure: all are NaN. If only the predicted cloud is empty, true points are
    infinitely far from it: ``bev_iou`` is 0, the distances from the truth are infinite, and so is their mean;
    ``chamfer_pred_to_true_m`` is NaN.
    """
    predicted = in_reference_agent(prediction.points_world.detach().float(), target).flatten(1, 3)
    true = in_reference_agent(truth_in_view0(target).points_world, target).flatten(1, 3)
    ground = OPV2V_LIDAR_HEIGHT_M if target.ground_height_m is None else target.ground_height_m[:, :1]
    valid = target.valid.flatten(1)
    order = torch.randperm(valid.shape[1], generator=torch.Generator().manual_seed(0)).to(valid.device)
    rows = [
        _compare(pred[kept_pred[order]], gt[kept_true[order]])
        for pred, gt, kept_pred, kept_true in zip(
            predicted[:, order],
            true[:, order],
            is_near(predicted, ground) & valid,
            is_near(true, ground) & valid,
            strict=True,
        )
    ]
    return dict(zip(CLOUD_NAMES, torch.stack(rows).unbind(dim=1), strict=True))


def _compare(predicted: Float[Tensor, "n 3"], true: Float[Tensor, "m 3"]) -> Float[Tensor, " 4"]:
    if not len(true):
        return torch.full((len(CLOUD_NAMES),), torch.nan, device=true.device, dtype=torch.float64)
    if not len(predicted):
        return torch.tensor([torch.inf, torch.nan, torch.inf, 0.0], device=true.device, dtype=torch.float64)
    accuracy = nearest_distance(predicted[:QUERY_POINTS], true[:REFERENCE_POINTS]).double().mean()
    completeness = nearest_distance(true[:QUERY_POINTS], predicted[:REFERENCE_POINTS]).double().mean()
    both = torch.stack([occupied(predicted, RADIUS_M), occupied(true, RADIUS_M)])
    iou = both.all(dim=0).sum().double() / both.any(dim=0).sum()
    return torch.stack([(accuracy + completeness) / 2, accuracy, completeness, iou])


def nearest_distance(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Float[Tensor, " n"]:
    """Distance of each query to its nearest reference; infinite where there is no reference.

    Args:
        queries: finite.
        references: finite.
    """
    if not len(references):
        return torch.full_like(queries[:, 0], torch.inf)
    with torch.autocast(queries.device.type, enabled=False):
        nearest = _in_tree(queries, references) if queries.device.type == "cpu" else _by_all(queries, references)
        return (queries - references[nearest]).norm(dim=1)


def _in_tree(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Int[Tensor, " n"]:
    from scipy.spatial import cKDTree

    # Boxes halved in the middle, not at the median: faster to build, and each cloud is searched only once.
    tree = cKDTree(references.numpy(), balanced_tree=False, compact_nodes=False)
    return torch.from_numpy(tree.query(queries.numpy())[1])


def _by_all(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Int[Tensor, " n"]:
    mode = "donot_use_mm_for_euclid_dist"  # matrix products may run in TF32 on a GPU, whose error is meters here
    parts = [torch.cdist(part, references, compute_mode=mode).argmin(dim=1) for part in queries.split(_CHUNK)]
    return torch.cat(parts)


def occupied(points: Float[Tensor, "n 3"], radius_m: float) -> Bool[Tensor, " cells"]:
    """Cells of the horizontal plane that hold a point."""
    cells = 2 * math.ceil(radius_m / CELL_M)
    index = torch.floor(points[:, [0, 2]] / CELL_M).long().clamp(-cells // 2, cells // 2 - 1) + cells // 2
    grid = torch.zeros(cells * cells, dtype=torch.bool, device=points.device)
    return grid.index_fill(0, index[:, 0] * cells + index[:, 1], True)
