"""Measures: figures per sample and per pair of agents, torchmetrics over them, and baselines (docs/measures.md)."""

from coopmap.metrics.agents import agent_poses
from coopmap.metrics.baselines import MeanPoseBaseline
from coopmap.metrics.breakdown import PairBreakdown
from coopmap.metrics.cloud import CloudFilter
from coopmap.metrics.collection import Measures, mask_warning
from coopmap.metrics.functional import pair_figures, sample_figures
from coopmap.metrics.measures import CloudError, DepthError, MaskMeans, MotionError, ScaleError, TrajectoryError
from coopmap.metrics.pose import RelativePoseError, pair_errors, pose_figures, predicted_pose

__all__ = [
    "CloudError",
    "CloudFilter",
    "DepthError",
    "MaskMeans",
    "MeanPoseBaseline",
    "Measures",
    "MotionError",
    "PairBreakdown",
    "RelativePoseError",
    "ScaleError",
    "TrajectoryError",
    "agent_poses",
    "mask_warning",
    "pair_errors",
    "pair_figures",
    "pose_figures",
    "predicted_pose",
    "sample_figures",
]
