"""Absolute trajectory error: of the agents of a sample, or of one agent over time, before and after alignment."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry import relative_pose
from coopmap.metrics.reduce import or_infinite

ALIGNMENTS = {"none": 1, "se3": 2, "sim3": 3}
"""Alignment and the smallest number of positions for which its error is meaningful: a similarity maps any two points
onto any two others."""

TRAJECTORY_NAMES = tuple(f"ate_{alignment}_m" for alignment in ALIGNMENTS)


def trajectory_figures(
    pose_pred: Float[Tensor, "b v 4 4"], pose_true: Float[Tensor, "b v 4 4"]
) -> dict[str, Float[Tensor, " b"]]:
    """Root mean square of the distances between the agents' predicted and true positions.

    ``ate_none_m``: both in the reference agent's frame, no alignment. ``ate_se3_m``, ``ate_sim3_m``: after the rigid
    motion or similarity that brings the predicted positions closest to the true ones (Umeyama 1991). NaN for fewer
    agents than :data:`ALIGNMENTS` says, and for the reference alone, which is where it is by definition; infinite where
    a predicted position is not finite.
    """
    pose_pred, pose_true = pose_pred.detach().double(), pose_true.detach().double()
    predicted = relative_pose(pose_pred[:, :1], pose_pred)[..., :3, 3]
    true = relative_pose(pose_true[:, :1], pose_true)[..., :3, 3]
    errors = absolute_errors(predicted, true)
    return errors if true.shape[1] > 1 else {name: torch.full_like(error, torch.nan) for name, error in errors.items()}


def absolute_errors(predicted: Float[Tensor, "b v 3"], true: Float[Tensor, "b v 3"]) -> dict[str, Float[Tensor, " b"]]:
    """Root mean squares of the distances between positions, by the names of :data:`TRAJECTORY_NAMES`.

    NaN for fewer positions than :data:`ALIGNMENTS` says.
    """
    figures, known = {}, true.isfinite().flatten(1).all(dim=1)
    for alignment, fewest in ALIGNMENTS.items():
        if true.shape[1] < fewest:
            figures[f"ate_{alignment}_m"] = true.new_full((len(true),), torch.nan)
        else:
            error = aligned(predicted, true, alignment) - true
            figures[f"ate_{alignment}_m"] = or_infinite(error.square().sum(dim=-1).mean(dim=-1).sqrt(), known)
    return figures


def aligned(predicted: Float[Tensor, "b v 3"], true: Float[Tensor, "b v 3"], alignment: str) -> Float[Tensor, "b v 3"]:
    """Move predicted positions onto the true ones; samples with a value that is not finite become NaN."""
    if alignment == "none":
        return predicted
    finite = predicted.isfinite().flatten(1).all(dim=1)[:, None, None]  # the SVD accepts only finite input
    safe = torch.where(finite, predicted, true)
    spread = (safe - safe.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2), keepdim=True)
    # coincident predictions have no scale, nor a rotation: any will do
    collapsed = spread < 1e-12
    scaled = alignment == "sim3"
    result = roma.rigid_points_registration(torch.where(collapsed, true, safe), true, compute_scaling=scaled)
    rotation, translation = result[0], result[1]
    moved = safe @ rotation.mT
    if scaled:
        moved = moved * result[2][:, None, None]
    moved = moved + translation[:, None]
    moved = torch.where(collapsed, true.mean(dim=1, keepdim=True), moved)
    return torch.where(finite, moved, torch.nan)
