"""Metrics: rows per sample and per pair of agents, their aggregation, and a baseline (docs/measures.md)."""

from coopmap.metrics.aggregate import aggregate
from coopmap.metrics.baselines import MeanPoseBaseline
from coopmap.metrics.collection import BASELINE_COLUMNS, Measures, mask_warning, truth_warning
from coopmap.metrics.pose import pair_errors, predicted_pose
from coopmap.metrics.rows import Rows, measure, pose_rows, slow_rows
from coopmap.types.agents import agent_poses

__all__ = [
    "BASELINE_COLUMNS",
    "MeanPoseBaseline",
    "Measures",
    "Rows",
    "agent_poses",
    "aggregate",
    "mask_warning",
    "measure",
    "pair_errors",
    "pose_rows",
    "predicted_pose",
    "slow_rows",
    "truth_warning",
]
