"""Baselines that need no model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry import nearest_rotation


class MeanPoseBaseline:
    """Always predicts the mean relative pose of the training set.

    A model that does not beat it has learned where agents tend to be, not where the ones in the images are.
    """

    def __init__(self) -> None:
        self.mean_poses: dict[int, Float[Tensor, "4 4"]] = {}

    def fit(self, poses_view0_view: Mapping[int, Float[Tensor, "n 4 4"]]) -> MeanPoseBaseline:
        """Fit to relative poses ``T_0_j`` keyed by the view index ``j`` >= 1.

        Translations are averaged; rotations by the chordal mean, the rotation nearest to the mean matrix, and
        the identity where rotations cancel.

        Raises:
            ValueError: if a key is below 1 or has no poses.
        """
        for view, poses in poses_view0_view.items():
            if view < 1 or poses.ndim != 3 or not len(poses):
                raise ValueError(f"poses of view {view}: expected a view >= 1 with (n, 4, 4) poses, got {poses.shape}")
            mean = poses.double().mean(dim=0)
            rotation = nearest_rotation(mean[:3, :3])
            mean[:3, :3] = torch.where(rotation.isnan(), torch.eye(3).to(mean), rotation)
            self.mean_poses[view] = mean.to(poses.dtype)
        return self

    def predict(self, num_views: int, batch: int) -> Float[Tensor, "b v 4 4"]:
        """Poses in view 0's frame, the same for every sample; identity for view 0.

        Views beyond those of the training samples get the pose of the last one.

        Raises:
            ValueError: if it was not fitted.
        """
        if not self.mean_poses and num_views > 1:
            raise ValueError("no training poses: fit() comes first")
        last = max(self.mean_poses, default=0)
        means = [self.mean_poses[min(view, last)] for view in range(1, num_views)]
        identity = torch.eye(4) if not means else torch.eye(4, dtype=means[0].dtype, device=means[0].device)
        return torch.stack([identity, *means]).expand(batch, num_views, 4, 4).clone()
