"""Measures, as torchmetrics classes, and the baselines that they are read beside."""

from coopmap.metrics.baselines import MeanPoseBaseline
from coopmap.metrics.dense import DepthError, MaskMeans, ScaleError
from coopmap.metrics.pose import RelativePoseError

__all__ = ["DepthError", "MaskMeans", "MeanPoseBaseline", "RelativePoseError", "ScaleError"]
