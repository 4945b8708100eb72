"""Predicted against true fused point cloud: Chamfer distance and occupancy from above."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.losses.normalized import truth_in_view0
from coopmap.metrics.agents import in_reference_agent
from coopmap.types import Prediction, Target

QUERY_POINTS = 4096
REFERENCE_POINTS = 32768
CELL_M = 0.5
MIN_HEIGHT_M, MAX_HEIGHT_M = -1.0, 4.2
"""Heights that count, above the ground under the reference agent."""
RADIUS_M = 120.0
"""Horizontal distance from the reference agent up to which points count."""
SENSOR_HEIGHT_M = 1.9
"""Of the reference agent's origin, its LiDAR, above that ground."""
CLOUD_NAMES = ("chamfer_m", "chamfer_pred_to_true_m", "chamfer_true_to_pred_m", "bev_iou")

_CHUNK = 1024
_CHUNK_ON_CPU = 16
"""Queries at a time whose distances stay in a CPU's cache, which makes it four times as fast."""


def is_near(points: Float[Tensor, "*b 3"]) -> Bool[Tensor, "*b"]:
    """Which points (reference agent's frame, y down) count, by their place around the agent; only finite ones."""
    height = SENSOR_HEIGHT_M - points[..., 1]
    near = torch.hypot(points[..., 0], points[..., 2]) < RADIUS_M
    return near & (height >= MIN_HEIGHT_M) & (height <= MAX_HEIGHT_M)


def cloud_figures(prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """Compare the points of all views, in the reference agent's frame, without alignment.

    Both clouds hold the pixels with known depth; each is filtered by its own coordinates. ``chamfer_pred_to_true_m`` is
    the mean distance of predicted points to the nearest true point, ``chamfer_true_to_pred_m`` the reverse,
    ``chamfer_m`` the mean of the two: of 4,096 points to 32,768, random but always the same pixels. ``bev_iou`` is the
    intersection over union of the cells of 0.5 m, seen from above, that hold a point. NaN where a cloud is empty.
    """
    predicted = in_reference_agent(prediction.points_world.detach().float(), target).flatten(1, 3)
    true = in_reference_agent(truth_in_view0(target).points_world, target).flatten(1, 3)
    valid = target.valid.flatten(1)
    order = torch.randperm(valid.shape[1], generator=torch.Generator().manual_seed(0)).to(valid.device)
    rows = [
        _compare(pred[kept_pred[order]], gt[kept_true[order]])
        for pred, gt, kept_pred, kept_true in zip(
            predicted[:, order], true[:, order], is_near(predicted) & valid, is_near(true) & valid, strict=True
        )
    ]
    return dict(zip(CLOUD_NAMES, torch.stack(rows).unbind(dim=1), strict=True))


def _compare(predicted: Float[Tensor, "n 3"], true: Float[Tensor, "m 3"]) -> Float[Tensor, " 4"]:
    if not (len(predicted) and len(true)):
        return torch.full((len(CLOUD_NAMES),), torch.nan, device=true.device, dtype=torch.float64)
    accuracy = nearest_distance(predicted[:QUERY_POINTS], true[:REFERENCE_POINTS]).double().mean()
    completeness = nearest_distance(true[:QUERY_POINTS], predicted[:REFERENCE_POINTS]).double().mean()
    both = torch.stack([occupied(predicted, RADIUS_M), occupied(true, RADIUS_M)])
    iou = both.all(dim=0).sum().double() / both.any(dim=0).sum()
    return torch.stack([(accuracy + completeness) / 2, accuracy, completeness, iou])


def nearest_distance(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Float[Tensor, " n"]:
    """Distance of each query to its nearest reference, to rounding."""
    with torch.autocast(queries.device.type, enabled=False):
        nearest = (
            _nearest_on_cpu(queries, references) if queries.device.type == "cpu" else _nearest(queries, references)
        )
        return (queries - references[nearest]).norm(dim=1)


def _nearest(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Int[Tensor, " n"]:
    mode = "donot_use_mm_for_euclid_dist"  # products may run in TF32 on a GPU, which is off by meters here
    parts = [torch.cdist(part, references, compute_mode=mode).argmin(dim=1) for part in queries.split(_CHUNK)]
    return torch.cat(parts)


def _nearest_on_cpu(queries: Float[Tensor, "n 3"], references: Float[Tensor, "m 3"]) -> Int[Tensor, " n"]:
    """By ``|r|^2 - 2 q.r``, a matrix product: quick; of references that are about equally near it may take either."""
    weights = torch.cat([-2 * references.T, references.square().sum(dim=1)[None]])
    homogeneous = torch.cat([queries, torch.ones_like(queries[:, :1])], dim=1)
    return torch.cat([(part @ weights).min(dim=1).indices for part in homogeneous.split(_CHUNK_ON_CPU)])


def occupied(points: Float[Tensor, "n 3"], radius_m: float) -> Bool[Tensor, " cells"]:
    """Cells of the horizontal plane that hold a point."""
    cells = 2 * math.ceil(radius_m / CELL_M)
    index = torch.floor(points[:, [0, 2]] / CELL_M).long().clamp(-cells // 2, cells // 2 - 1) + cells // 2
    grid = torch.zeros(cells * cells, dtype=torch.bool, device=points.device)
    return grid.index_fill(0, index[:, 0] * cells + index[:, 1], True)
