"""The metrics of a batch before averaging: a row per sample and a row per pair of agents."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.metrics.cloud import cloud_figures
from coopmap.metrics.covisibility import RangeImages, covisibility
from coopmap.metrics.dense import dense_figures
from coopmap.metrics.matching import CELL_NAMES, MATCH_COLUMNS, cell_range_figures, match_figures
from coopmap.metrics.pose import pair_errors, pose_figures, predicted_pose
from coopmap.metrics.trajectory import trajectory_figures
from coopmap.types import Prediction, Target
from coopmap.types.agents import agent_poses


@dataclass(frozen=True)
class Rows:
    """Columns by name, in double precision; NaN where there is nothing to measure.

    ``docs/measures.md`` defines them. They do not depend on the rest of the batch.

    Attributes:
        samples: a value per sample.
        pairs: a value per pair of agents ``i < j``, ordered 01, 02, ..., 12, ...; none for a single agent.
    """

    samples: dict[str, Float[Tensor, " b"]] = field(default_factory=dict)
    pairs: dict[str, Float[Tensor, "b p"]] = field(default_factory=dict)

    def __or__(self, other: Rows) -> Rows:
        """The columns of both."""
        return Rows(self.samples | other.samples, self.pairs | other.pairs)


def measure(prediction: Prediction, target: Target) -> Rows:
    """All that validation computes, in full precision whatever the model's precision."""
    with torch.autocast(target.depth.device.type, enabled=False):
        pose_pred, pose_true = agent_poses(predicted_pose(prediction), target), agent_poses(target.pose, target)
        rows = pose_rows(pose_pred, pose_true)
        dense = dense_figures(prediction, target)
        images = RangeImages.of(target)
        shared = covisibility(target, images)
        rows |= Rows({name: values.double() for name, values in dense.items()})
        rows |= Rows({"covisibility": shared.nanmean(dim=1)}, {"covisibility": shared})
        if prediction.matches is None:
            return rows | _no_matches(shared)
        cells = cell_range_figures(prediction, target, prediction.matches.scores.shape[-1])
        return rows | Rows(cells, match_figures(prediction.matches, target, images, shared))


def _no_matches(like: Float[Tensor, "b p"]) -> Rows:
    """Columns of a model that does not match, or of a single agent."""
    nothing = torch.full_like(like, torch.nan)
    return Rows(
        dict.fromkeys(CELL_NAMES, like.new_full((len(like),), torch.nan)), dict.fromkeys(MATCH_COLUMNS, nothing)
    )


def pose_rows(pose_pred: Float[Tensor, "b n 4 4"], pose_true: Float[Tensor, "b n 4 4"]) -> Rows:
    """The part of :func:`measure` that concerns poses of agents; each may be in any frame common to a sample."""
    pairs = pair_errors(pose_pred, pose_true)
    agents = pairs["distance_m"].new_full((len(pose_true),), pose_true.shape[1])
    samples = {"num_agents": agents} | pose_figures(pairs) | trajectory_figures(pose_pred, pose_true)
    return Rows(samples, {"num_agents": agents[:, None].expand_as(pairs["trans_m"]), **pairs})


def slow_rows(prediction: Prediction, target: Target) -> Rows:
    """Further columns for evaluations, which are slow: point clouds."""
    with torch.autocast(target.depth.device.type, enabled=False):
        return Rows(cloud_figures(prediction, target))
