"""The measures of validation and of evaluation, together."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchmetrics import Metric

from coopmap.metrics.agents import agent_poses
from coopmap.metrics.breakdown import PairBreakdown
from coopmap.metrics.measures import CloudError, DepthError, MaskMeans, MotionError, ScaleError, TrajectoryError
from coopmap.metrics.pose import RelativePoseError, predicted_pose
from coopmap.types import Prediction, Target

SMALLEST_MASK_MEAN = 0.05


class Measures(nn.Module):
    """All measures of a split: ``update`` with each batch, ``compute`` and ``reset`` at its end.

    Args:
        full: also those that take a while: point clouds and the breakdown by co-visibility.
    """

    def __init__(self, full: bool = False) -> None:
        super().__init__()
        self.pose = RelativePoseError()
        self.others = nn.ModuleList(
            [PairBreakdown(full), TrajectoryError(), ScaleError(), DepthError(), MaskMeans(), MotionError()]
        )
        if full:
            self.others.append(CloudError())

    def update(self, prediction: Prediction, target: Target) -> None:
        """Add a batch."""
        self.pose.update(agent_poses(predicted_pose(prediction), target), agent_poses(target.pose, target))
        for measure in self._others():
            measure.update(prediction, target)

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything that all ranks added since the last reset; a collective call."""
        figures = self.pose.compute()
        for measure in self._others():
            figures |= measure.compute()
        return figures

    def _others(self) -> list[Metric]:
        return cast(list[Metric], list(self.others))

    def reset(self) -> None:
        """Forget everything."""
        self.pose.reset()
        for measure in self._others():
            measure.reset()


def mask_warning(figures: dict[str, Tensor], split: str) -> str | None:
    """What to tell the user about a mask that has collapsed, or ``None``."""
    predicted = float(figures["mask_pred_mean"])
    if not predicted < SMALLEST_MASK_MEAN:
        return None
    return (
        f"{split}/mask_pred_mean is {predicted:.3f}, below {SMALLEST_MASK_MEAN} (the truth is "
        f"{float(figures['mask_true_mean']):.3f}): the model keeps almost no point. "
        "Look at the mask term of the loss, and whether the weights that were loaded hold a mask head"
    )
