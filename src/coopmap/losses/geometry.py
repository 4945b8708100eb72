"""Terms on what each pixel shows: points, depth, rays, coverage; and on the metric scale."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from coopmap.losses.blocks import sum_rows
from coopmap.losses.inputs import LossInputs
from coopmap.losses.pixels import PixelLoss
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_log_loss, robust_log_maps, robust_maps

DEPTH_NAMES = {"ray": "depth_along_ray", "z": "depth_z"}
"""Upstream's names of the term ``depth``."""


def world_point_loss(inputs: LossInputs) -> PixelLoss:
    """Points in view 0's frame, log space: combines rays, depth and poses."""
    return _in_log(inputs, inputs.pair.prediction.metric.points_world, inputs.pair.truth.metric.points_world)


def view_point_loss(inputs: LossInputs) -> PixelLoss:
    """Points in their own view's frame, log space."""
    return _in_log(inputs, inputs.pair.prediction.metric.points_view, inputs.pair.truth.metric.points_view)


def depth_loss(inputs: LossInputs) -> PixelLoss:
    """Range along the ray, or the forward coordinate, log space."""
    prediction, truth = inputs.pair.prediction.metric, inputs.pair.truth.metric
    if inputs.cfg.depth == "ray":
        return _in_log(inputs, prediction.depth[..., None], truth.depth[..., None])
    return _in_log(inputs, prediction.points_view[..., 2:], truth.points_view[..., 2:])


def _in_log(inputs: LossInputs, prediction: Float[Tensor, "b v h w c"], truth: Float[Tensor, "b v h w c"]) -> PixelLoss:
    """Both in units of their own mean distance."""

    def rows(predicted: Tensor, true: Tensor, unit: Tensor, true_unit: Tensor) -> Tensor:
        return robust_log_maps(predicted, unit, true, true_unit, inputs.cfg)

    return PixelLoss(rows, (prediction, truth), (inputs.pair.prediction.unit_m, inputs.pair.truth.unit_m))


def ray_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Unit rays of all pixels: rays are known even where depth is not."""

    def rows(predicted: Tensor, true: Tensor, factor: Tensor) -> Tensor:
        return (robust_maps(predicted, true, inputs.cfg) * factor).sum(dim=-1)

    (sums,) = sum_rows(rows, (inputs.prediction.rays, inputs.target.rays, inputs.factor))
    total = inputs.factor.sum(dim=(0, 2, 3))
    return sums.sum(dim=0) / torch.where(total > 0, total, 1.0)


def mask_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Binary cross entropy of each view, over all pixels of the batch."""
    logits, covered = inputs.prediction.mask_logits, inputs.target.non_ambiguous
    pos_weight = None
    if inputs.cfg.mask_pos_weight == "auto":
        share = covered.to(logits.dtype).mean()
        pos_weight = ((1 - share) / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0.1, 10.0)

    def rows(logits: Tensor, covered: Tensor) -> Tensor:
        truth = covered.to(logits.dtype)
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=pos_weight, reduction="none")
        return entropy.sum(dim=-1)

    (sums,) = sum_rows(rows, (logits, covered))
    return sums.sum(dim=0) / (logits.numel() // logits.shape[1])


def scale_loss(inputs: LossInputs) -> Float[Tensor, ""]:
    """Mean point distance in meters, log space: mean over metric samples, 0 when there is none.

    The only published term that trains the metric scale, and it trains only that: the distance is that of detached
    geometry.
    """
    pair = inputs.pair
    loss = robust_log_loss(pair.predicted_distance_m[:, None], pair.true_distance_m[:, None], inputs.cfg)
    return weighted_mean(loss, pair.has_metric_distance.to(loss), dim=0)


def has_scale(inputs: LossInputs) -> Bool[Tensor, " b"]:
    """Samples that are metric and have known depth."""
    return inputs.pair.has_metric_distance
