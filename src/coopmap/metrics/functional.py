"""All figures of a batch, per sample and per pair of agents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.metrics.agents import agent_poses
from coopmap.metrics.cloud import cloud_figures
from coopmap.metrics.covisibility import covisibility
from coopmap.metrics.dense import depth_figures, mask_figures, motion_figures, scale_figures
from coopmap.metrics.pose import pair_errors, pose_figures, predicted_pose
from coopmap.metrics.trajectory import trajectory_figures
from coopmap.types import Prediction, Target


def sample_figures(prediction: Prediction, target: Target, full: bool = True) -> dict[str, Float[Tensor, " b"]]:
    """Figures of each sample, in double precision; NaN where one is undefined.

    The names, units and definitions are in ``docs/measures.md``. They do not depend on the batch.

    Args:
        prediction: of the model.
        target: ground truth.
        full: also those that take a while: point clouds and co-visibility.
    """
    pose_pred, pose_true = agent_poses(predicted_pose(prediction), target), agent_poses(target.pose, target)
    figures = {"num_agents": torch.full_like(pose_true[:, 0, 0, 0], pose_true.shape[1])}
    figures |= pose_figures(pose_pred, pose_true) | trajectory_figures(pose_pred, pose_true)
    figures |= scale_figures(prediction, target) | depth_figures(prediction, target)
    figures |= mask_figures(prediction, target) | motion_figures(prediction, target)
    if full:
        figures |= cloud_figures(prediction, target)
        figures["covisibility"] = covisibility(target).mean(dim=1)
    return {name: values.double() for name, values in figures.items()}


def pair_figures(prediction: Prediction, target: Target) -> dict[str, Float[Tensor, "b p"]]:
    """Figures of each pair of agents ``i < j``: :func:`pair_errors` and ``covisibility``, after ``distance_m``."""
    errors = pair_errors(agent_poses(predicted_pose(prediction), target), agent_poses(target.pose, target))
    return {name: errors[name] for name in ("i", "j", "distance_m")} | {"covisibility": covisibility(target)} | errors
