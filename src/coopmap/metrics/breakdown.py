"""Errors of pairs of agents by distance, number of agents and co-visibility."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from coopmap.metrics.agents import agent_poses
from coopmap.metrics.covisibility import covisibility
from coopmap.metrics.pose import pair_errors, predicted_pose
from coopmap.metrics.reduce import bin_label, in_bin
from coopmap.metrics.states import Table, median
from coopmap.types import Prediction, Target

DISTANCE_BINS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 50.0), (50.0, 70.0), (70.0, math.inf))
COVISIBILITY_BINS_PERCENT = ((0.0, 5.0), (5.0, 20.0), (20.0, 50.0), (50.0, math.inf))

_COLUMNS = ("num_agents", "distance_m", "trans_m", "rot_deg")


class PairBreakdown(Metric):
    """Relative pose errors of all pairs of agents, by group; groups without a pair are left out.

    ``compute`` returns ``trans_m_mean_GROUP``, ``trans_m_median_GROUP``, ``rot_deg_mean_GROUP`` and ``pairs_GROUP``,
    their number, where GROUP is a true distance (``10_20m``), a number of agents in the sample (``3_agents``) or, with
    ``by_covisibility``, a co-visibility (``covisible_5_20``, percent).

    Args:
        by_covisibility: also by co-visibility, which takes longer.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, by_covisibility: bool = False) -> None:
        super().__init__()
        self.columns = (*_COLUMNS, "covisibility") if by_covisibility else _COLUMNS
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, prediction: Prediction, target: Target) -> None:
        """Add a batch; single agents add nothing."""
        pose_true = agent_poses(target.pose, target)
        pairs = pair_errors(agent_poses(predicted_pose(prediction), target), pose_true)
        pairs["num_agents"] = torch.full_like(pairs["distance_m"], pose_true.shape[1])
        if "covisibility" in self.columns:
            pairs["covisibility"] = covisibility(target)
        self.rows.append(torch.stack([pairs[name] for name in self.columns], dim=-1).flatten().float())

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        table = Table(self.columns, self.rows, self.device)
        groups = {bin_label(low, high, "m"): in_bin(table["distance_m"], low, high) for low, high in DISTANCE_BINS_M}
        for number in table["num_agents"].unique().tolist():
            groups[f"{number:g}_agents"] = table["num_agents"] == number
        if "covisibility" in self.columns:
            for low, high in COVISIBILITY_BINS_PERCENT:
                groups[f"covisible_{bin_label(low, high, '')}"] = in_bin(100 * table["covisibility"], low, high)
        figures = {}
        for label, members in groups.items():
            trans_m, rot_deg = table["trans_m"][members], table["rot_deg"][members]
            if len(trans_m):
                figures[f"trans_m_mean_{label}"] = trans_m.mean()
                figures[f"trans_m_median_{label}"] = median(trans_m)
                figures[f"rot_deg_mean_{label}"] = rot_deg.mean()
                figures[f"pairs_{label}"] = members.sum()
        return {name: value.float() for name, value in figures.items()}
