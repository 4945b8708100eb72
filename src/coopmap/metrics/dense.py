"""Metrics over pixels: coverage mask, depth, metric scale, moving vehicles. All unaligned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.metrics.reduce import bin_label, in_bin, mean_where
from coopmap.types import Prediction, Target, mean_distance, truth_in_view0

INLIER_RATIOS = {"103": 1.03, "125": 1.25}
RANGE_BINS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 40.0), (40.0, 80.0), (80.0, math.inf))

_RANGES = tuple(bin_label(low, high, "m") for low, high in RANGE_BINS_M)
_KINDS = ("moving", "static", "own_body")

MASK_NAMES = ("mask_pred_mean", "mask_true_mean", "mask_iou")
DEPTH_NAMES = ("depth_abs_rel", *(f"depth_inlier_{name}" for name in INLIER_RATIOS))
DEPTH_RANGE_NAMES = tuple(f"{name}_{label}" for label in _RANGES for name in ("depth_abs_rel", "depth_inlier_125"))
SCALE_NAMES = ("scale_ratio", "scale_abs_rel")
SCALE_RANGE_NAMES = tuple(f"scale_ratio_{label}" for label in _RANGES)
MOTION_NAMES = ("moving_share", *(f"{name}_{kind}" for kind in _KINDS for name in ("depth_abs_rel", "points_m")))


@dataclass(frozen=True)
class Pixels:
    """Inputs that metrics over pixels share; what a prediction has that is not finite is infinitely far off.

    Attributes:
        valid: range is known.
        true, predicted: range along the ray, the true one is 1 where unknown.
        abs_rel: relative error of the range.
        bins: by label of :data:`RANGE_BINS_M`, the valid pixels whose true range is in it.
        points_true, points_pred: in view 0's frame.
    """

    valid: Bool[Tensor, "b v h w"]
    true: Float[Tensor, "b v h w"]
    predicted: Float[Tensor, "b v h w"]
    abs_rel: Float[Tensor, "b v h w"]
    bins: dict[str, Bool[Tensor, "b v h w"]]
    points_true: Float[Tensor, "b v h w 3"]
    points_pred: Float[Tensor, "b v h w 3"]

    @classmethod
    def of(cls, prediction: Prediction, target: Target) -> Pixels:
        """Pixels of a batch."""
        valid = target.valid & (target.depth > 0)
        true = torch.where(valid, target.depth, 1.0)
        predicted = _or_infinite(prediction.depth.detach().to(true.dtype))
        abs_rel = (predicted - true).abs() / true
        limits = dict(zip(_RANGES, RANGE_BINS_M, strict=True))
        bins = {label: valid & in_bin(true, low, high) for label, (low, high) in limits.items()}
        points_pred = _or_infinite(prediction.points_world.detach().float())
        return cls(valid, true, predicted, abs_rel, bins, truth_in_view0(target).points_world, points_pred)


def dense_figures(prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """All metrics over pixels, of each sample."""
    pixels = Pixels.of(prediction, target)
    figures = scale_figures(pixels, target) | depth_figures(pixels)
    return figures | mask_figures(prediction, target) | motion_figures(pixels, target)


def mask_figures(prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """Mean predicted and true coverage over all pixels, and their intersection over union.

    The predicted mask is ``logit > 0``, by which predicted points are kept or dropped.
    """
    covered, true = prediction.mask_logits > 0, target.non_ambiguous

    def count(mask: Bool[Tensor, "b v h w"]) -> Float[Tensor, " b"]:
        return mask.flatten(1).sum(dim=1).double()

    pixels = covered[0].numel()
    return {
        "mask_pred_mean": count(covered) / pixels,
        "mask_true_mean": count(true) / pixels,
        "mask_iou": count(covered & true) / count(covered | true),
    }


def depth_figures(pixels: Pixels) -> dict[str, Float[Tensor, " b"]]:
    """Absolute relative error and inlier ratios of the range along the ray, over valid pixels.

    ``depth_inlier_103`` is the share of pixels whose ratio to the truth is within a factor of 1.03, ``_125`` of 1.25.
    Over the whole range: means of each view, averaged over the views with a valid pixel (as upstream's benchmark, but
    in meters, not normalized). Per bin of the true range: over the pixels of all views.
    """
    inlier = {name: _within(pixels.predicted, pixels.true, ratio) for name, ratio in INLIER_RATIOS.items()}
    figures = {"depth_abs_rel": _mean_of_views(pixels.abs_rel, pixels.valid)}
    figures |= {f"depth_inlier_{name}": _mean_of_views(inside, pixels.valid) for name, inside in inlier.items()}
    for label, here in pixels.bins.items():
        figures[f"depth_abs_rel_{label}"] = mean_where(pixels.abs_rel, here)
        figures[f"depth_inlier_125_{label}"] = mean_where(inlier["125"], here)
    return figures


def scale_figures(pixels: Pixels, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """Ratio of predicted to true lengths on metric samples, NaN on others.

    ``scale_ratio``: of the mean distances of the valid points from the reference agent; ``scale_abs_rel``: its
    distance from 1. Per bin of the true range: of the mean ranges along the rays.
    """
    true = mean_distance(pixels.points_true, target.valid)
    # elsewhere, what is infinite times zero would be NaN
    predicted = mean_distance(torch.where(target.valid[..., None], pixels.points_pred, 0.0), target.valid)
    ratio = torch.where(target.valid.flatten(1).any(dim=1), predicted.double() / true, torch.nan)
    ratios = {"scale_ratio": ratio, "scale_abs_rel": (ratio - 1).abs()}
    for label, here in pixels.bins.items():
        ratios[f"scale_ratio_{label}"] = mean_where(pixels.predicted, here) / mean_where(pixels.true, here)
    return {name: torch.where(target.is_metric, values, torch.nan) for name, values in ratios.items()}


def motion_figures(pixels: Pixels, target: Target) -> dict[str, Float[Tensor, " b"]]:
    """Errors on moving vehicles, on the static world and on the ego vehicles' bodies.

    ``depth_abs_rel_*`` is over the pixels of all views, ``points_m_*`` the mean distance between predicted and true
    points in the reference agent's frame; ``moving_share`` is the share of the valid pixels that show a moving
    vehicle. NaN where the target does not identify them (``moving`` or ``own_body`` is ``None``) or no pixel is of that
    kind.
    """
    if target.moving is None and target.own_body is None:
        return dict.fromkeys(MOTION_NAMES, pixels.true.new_full((len(pixels.true),), torch.nan))
    valid, nothing = pixels.valid, torch.zeros_like(pixels.valid)
    own = nothing if target.own_body is None else target.own_body & valid
    if target.moving is None:
        moving = static = nothing
    else:
        moving, static = target.moving & valid & ~own, valid & ~target.moving & ~own
    points_m = torch.linalg.vector_norm(pixels.points_pred - pixels.points_true, dim=-1)
    share = mean_where(moving.float(), valid)
    figures = {"moving_share": share if target.moving is not None else torch.full_like(share, torch.nan)}
    for kind, mask in zip(_KINDS, (moving, static, own), strict=True):
        figures[f"depth_abs_rel_{kind}"] = mean_where(pixels.abs_rel, mask)
        figures[f"points_m_{kind}"] = mean_where(points_m, mask)
    return figures


def _or_infinite(predicted: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return torch.where(predicted.isfinite(), predicted, math.inf)


def _within(predicted: Float[Tensor, "*n"], true: Float[Tensor, "*n"], ratio: float) -> Float[Tensor, "*n"]:
    return ((predicted < ratio * true) & (true < ratio * predicted)).to(true.dtype)


def _mean_of_views(values: Float[Tensor, "b v h w"], valid: Bool[Tensor, "b v h w"]) -> Float[Tensor, " b"]:
    """Mean over views of their means; views without a valid pixel do not count."""
    views = mean_where(values.flatten(0, 1), valid.flatten(0, 1)).view(values.shape[:2])
    return mean_where(views, valid.flatten(2).any(dim=-1))
