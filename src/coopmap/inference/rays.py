"""How far predicted rays are from calibrated ones, and whether points hang on them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.inference.inputs import Views
from coopmap.inference.runner import Inference
from coopmap.models.placement import calibrated_rays

RAYS_OFF_DEG = 5.0
"""A larger median angle bends what is seen: a panorama's nominal rays are within 2 degrees of what pixels show."""


def median_angle_deg(
    rays: Float[Tensor, "v *p 3"], reference: Float[Tensor, "v *p 3"], counted: Bool[Tensor, "v *p"]
) -> list[float]:
    """Median angle between unit rays of each view; NaN where no pixel counts."""
    chord = (rays.double() - reference.double()).norm(dim=-1)
    angle = torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1)))
    return [float(of_view[pixels].median()) for of_view, pixels in zip(angle, counted, strict=True)]


def predicted_rays_off_deg(views: Views, result: Inference) -> list[float] | None:
    """Median angle of each view's predicted rays to the calibrated ones; ``None`` of images without calibration."""
    if views.source is None:
        return None
    prediction, observation = result.prediction, views.observation.map(lambda tensor: tensor[None])
    counted = torch.ones_like(result.mask) if views.covered is None else views.covered.cpu()
    return median_angle_deg(prediction.rays[0], calibrated_rays(prediction, observation)[0], counted)


def rays_to_doubt(views: Views, result: Inference) -> list[str]:
    """A sentence about the views whose points hang on predicted rays that are far from the calibrated ones, if any."""
    off = None if result.rays_from == "calibration" else predicted_rays_off_deg(views, result)
    if off is None:
        return []
    doubtful = {name: angle for name, angle in zip(views.names, off, strict=True) if angle > RAYS_OFF_DEG}
    if not doubtful:
        return []
    return [
        f"do not rely on the points of {', '.join(doubtful)}: predicted rays are up to {max(doubtful.values()):.0f} "
        "degrees off the calibrated ones (median of a view); train longer, or rays with more weight "
        "(loss.weights.ray_directions)"
    ]


def describe_rays(views: Views, result: Inference) -> dict[str, Any]:
    """What ``cameras.json`` says of rays."""
    return {"rays_from": result.rays_from, "predicted_rays_off_deg": predicted_rays_off_deg(views, result)}
