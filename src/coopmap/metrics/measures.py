"""Torchmetrics over the figures of samples and of pairs of agents."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from coopmap.metrics.agents import agent_poses
from coopmap.metrics.cloud import CLOUD_NAMES, cloud_figures
from coopmap.metrics.dense import (
    DEPTH_NAMES,
    DEPTH_RANGE_NAMES,
    MASK_NAMES,
    MOTION_NAMES,
    SCALE_NAMES,
    SCALE_RANGE_NAMES,
    depth_figures,
    mask_figures,
    motion_figures,
    scale_figures,
)
from coopmap.metrics.pose import predicted_pose
from coopmap.metrics.states import Table, median
from coopmap.metrics.trajectory import TRAJECTORY_NAMES, trajectory_figures
from coopmap.types import Prediction, Target


class SampleMeasure(Metric):
    """Means over samples of figures of a sample; undefined ones (NaN) do not count.

    ``compute`` returns each name of ``names``, or ``NAME_mean`` and ``NAME_median`` of those in ``medians``: NaN if no
    sample defines it. Those in ``optional`` are left out instead.
    """

    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ()
    medians: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def figures(self, prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
        """Figures of each sample, at least ``names`` and ``optional``."""
        raise NotImplementedError

    def update(self, prediction: Prediction, target: Target) -> None:
        """Add a batch."""
        figures = self.figures(prediction, target)
        rows = torch.stack([figures[name].double() for name in (*self.names, *self.optional)], dim=1)
        self.rows.append(rows.flatten().float())

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        table = Table((*self.names, *self.optional), self.rows, self.device)
        result: dict[str, Tensor] = {}
        for name in self.names:
            if name in self.medians:
                result |= {f"{name}_mean": table[name].nanmean(), f"{name}_median": median(table[name])}
            else:
                result[name] = table[name].nanmean()
        result |= {name: table[name].nanmean() for name in self.optional if not table[name].isnan().all()}
        return {name: value.float() for name, value in result.items()}


class DepthError(SampleMeasure):
    """See :func:`coopmap.metrics.dense.depth_figures`."""

    names = DEPTH_NAMES
    optional = DEPTH_RANGE_NAMES
    figures = staticmethod(depth_figures)


class ScaleError(SampleMeasure):
    """See :func:`coopmap.metrics.dense.scale_figures`."""

    names = SCALE_NAMES
    medians = ("scale_ratio",)
    optional = SCALE_RANGE_NAMES
    figures = staticmethod(scale_figures)


class MaskMeans(SampleMeasure):
    """See :func:`coopmap.metrics.dense.mask_figures`."""

    names = MASK_NAMES
    figures = staticmethod(mask_figures)


class MotionError(SampleMeasure):
    """See :func:`coopmap.metrics.dense.motion_figures`."""

    optional = MOTION_NAMES
    figures = staticmethod(motion_figures)


class CloudError(SampleMeasure):
    """See :func:`coopmap.metrics.cloud.cloud_figures`."""

    names = CLOUD_NAMES
    figures = staticmethod(cloud_figures)


class TrajectoryError(SampleMeasure):
    """See :func:`coopmap.metrics.trajectory.trajectory_figures`."""

    optional = TRAJECTORY_NAMES

    def figures(self, prediction: Prediction, target: Target) -> dict[str, Float[Tensor, " b"]]:
        """Figures of each sample."""
        return trajectory_figures(agent_poses(predicted_pose(prediction), target), agent_poses(target.pose, target))
