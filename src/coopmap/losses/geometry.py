"""Terms on what each pixel shows: points, depth, rays, coverage; and on the metric scale."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from coopmap.losses.inputs import LossInputs
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_log_loss, robust_loss

DEPTH_NAMES = {"ray": "depth_along_ray", "z": "depth_z"}
"""Upstream's names of the term ``depth``."""


def world_point_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Points in view 0's frame, log space: combines rays, depth and poses."""
    return robust_log_loss(inputs.pair.prediction.points_world, inputs.pair.truth.points_world, inputs.cfg)


def view_point_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Points in their own view's frame, log space."""
    return robust_log_loss(inputs.pair.prediction.points_view, inputs.pair.truth.points_view, inputs.cfg)


def depth_loss(inputs: LossInputs) -> Float[Tensor, "b v h w"]:
    """Range along the ray, or the forward coordinate, log space."""
    prediction, truth = inputs.pair.prediction, inputs.pair.truth
    if inputs.cfg.depth == "ray":
        return robust_log_loss(prediction.depth[..., None], truth.depth[..., None], inputs.cfg)
    return robust_log_loss(prediction.points_view[..., 2:], truth.points_view[..., 2:], inputs.cfg)


def ray_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Unit rays of all pixels: rays are known even where depth is not."""
    loss = robust_loss(inputs.prediction.rays, inputs.target.rays, inputs.cfg)
    return weighted_mean(loss, inputs.factor, dim=(0, 2, 3))


def mask_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Binary cross entropy of each view, over all pixels of the batch."""
    logits = inputs.prediction.mask_logits
    covered = inputs.target.non_ambiguous.to(logits.dtype)
    pos_weight = None
    if inputs.cfg.mask_pos_weight == "auto":
        share = covered.mean()
        pos_weight = ((1 - share) / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0.1, 10.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, covered, pos_weight=pos_weight, reduction="none")
    return entropy.mean(dim=(0, 2, 3))


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
