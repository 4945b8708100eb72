"""In words, what to suspect when a prediction is off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coopmap.inference.rays import RAYS_OFF_DEG

LEAST_MASK = 0.05
MASK_OFF = 0.2
SCALE_OFF = 0.15
"""Ratio of lengths this far from 1."""
LARGE_TRANS_M, LARGE_SHARE = 2.0, 0.1
"""A pose is off by more than so many meters and so much of the distance between agents."""
TURNED_DEG = 120.0
NOTHING = "Nothing stands out: poses, scale, depth, rays and masks agree with the truth."
FINE_CLOUD_M = 1.5
"""Clouds this close to the truth, with true poses, are not what is wrong with the poses."""
ROUGH_DEPTH = 0.25


def suspects(summary: Mapping[str, Any]) -> list[str]:
    """Lines to read first; one line that says so where nothing stands out.

    Args:
        summary: with ``pred``, ``gt``, ``errors`` and ``rays_from``.
    """
    lines = [*_mask(summary), *_scale(summary), *_poses(summary), *_depth(summary), *_rays(summary)]
    return lines or [NOTHING]


def _mask(summary: Mapping[str, Any]) -> list[str]:
    pred, true = summary["pred"]["mask_mean"], summary["gt"]["mask_mean"]
    if pred < LEAST_MASK:
        return [
            f"Mask or training: the model masks out nearly everything (mean of its mask {pred:.3f}, cameras cover "
            f"{true:.3f}). Look at the mask loss, whether the mask was constant in training, and train longer."
        ]
    if abs(pred - true) > MASK_OFF:
        return [f"Mask: its mean is {pred:.2f}, cameras cover {true:.2f}. Look at the mask loss and at the coverage."]
    return []


def _scale(summary: Mapping[str, Any]) -> list[str]:
    ratio = summary["errors"]["scale_ratio"]
    if not math.isfinite(ratio) or abs(ratio - 1) <= SCALE_OFF:
        return []
    return [
        f"Scale: predicted lengths are {ratio:.2f} times the true ones. Look at the scale head and its loss, and at "
        "the kind of the depth files (data.depth.kind: z or ray)."
    ]


def _poses(summary: Mapping[str, Any]) -> list[str]:
    errors, distance = summary["errors"], summary["gt"]["distance_m_mean"]
    trans, turned = errors["trans_m_mean"], errors["rot_deg_mean"]
    if trans is None:
        return []
    if not math.isfinite(trans):
        return ["Poses: the model gives none for some agent (not finite)."]
    lines = []
    if turned > TURNED_DEG:
        lines.append(f"Headings: agents are turned by {turned:.0f} degrees on average, as if seen from the other side.")
    if trans > max(LARGE_TRANS_M, LARGE_SHARE * distance):
        lines.append(f"Poses: off by {trans:.1f} m at {distance:.0f} m, {_fit(errors['chamfer_m_gt_poses'])}")
    return lines


def _fit(chamfer: float) -> str:
    """What the points say, placed by the true poses, where the predicted poses are off."""
    fit = f"with the true poses (Chamfer {chamfer_text(chamfer)})"
    if chamfer < FINE_CLOUD_M:
        return f"while the points fit {fit}: suspect the pose loss, the pose head, or model.pose_from, not depth."
    fits = "and the points do not fit either" if math.isfinite(chamfer) else "and nothing tells whether the points fit"
    return f"{fits} {fit}: suspect training as a whole, or depth first."


def chamfer_text(meters: float) -> str:
    """``0.40 m``, or why it cannot be measured."""
    if math.isfinite(meters):
        return f"{meters:.2f} m"
    return f"cannot be measured: no {'true' if math.isnan(meters) else 'predicted'} point is near"


def _depth(summary: Mapping[str, Any]) -> list[str]:
    abs_rel = summary["errors"]["depth_abs_rel"]
    if math.isinf(abs_rel):
        return ["Depth: the model gives none for some pixels (not finite)."]
    if math.isnan(abs_rel):
        return ["No true depth is known of this sample: depth, scale and points cannot be judged."]
    if abs_rel <= ROUGH_DEPTH:
        return []
    return [
        f"Depth: off by {abs_rel:.0%} of the range on average. Look at the depth and point losses, and train longer."
    ]


def _rays(summary: Mapping[str, Any]) -> list[str]:
    off = summary["errors"]["rays_deg_median"]
    if not off > RAYS_OFF_DEG:  # NaN: nothing was seen
        return []
    points = (
        "points are shown on the calibrated ones, which matching aligns"
        if summary["rays_from"] == "calibration"
        else "points are off with them"
    )
    return [
        f"Rays: predicted ones are off by {off:.0f} degrees in the median; {points}. Look at the weight of their loss "
        "(loss.weights.ray_directions), and train longer."
    ]
