"""Where the points of a prediction are: along its own rays, or along the calibrated ones, as matching takes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.addons.matching.cells import points_on_calibrated_rays
from coopmap.models.decoding import with_poses
from coopmap.models.mapanything import MapAnything
from coopmap.types import Observation, Prediction


def matches_on_calibrated_rays(model: nn.Module | Callable[[Observation], Prediction]) -> bool:
    """Whether the model aligns points on calibrated rays, so that its own rays count for nothing in its poses."""
    if not isinstance(model, MapAnything):
        return False
    return bool(model.cfg.matching.enabled) and model.cfg.matching.rays == "calibrated"


def as_matched(
    model: nn.Module | Callable[[Observation], Prediction], prediction: Prediction, observation: Observation
) -> Prediction:
    """The prediction of a model with the rays and points that its matching aligns; of other models as it is."""
    if not matches_on_calibrated_rays(model):
        return prediction
    rays = calibrated_rays(prediction, observation)
    placed = replace(prediction, rays=rays, points_view=rays * prediction.depth[..., None])
    return with_poses(placed, placed.pose_quat, placed.pose_trans)


def calibrated_rays(prediction: Prediction, observation: Observation) -> Float[Tensor, "b v h w 3"]:
    """Unit rays that calibration gives; in a mosaic as seen from the agent's center, which depends on the ranges."""
    points = points_on_calibrated_rays(prediction, observation)
    return points / points.norm(dim=-1, keepdim=True).clamp(min=1e-8)
