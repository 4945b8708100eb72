"""Pose priors fused with poses predicted from images.

A network that gets a pose prior as input and has to predict the pose learns to copy its input, errors included, and to
ignore the images. So here it does not see the prior: it predicts from the images, its prediction is treated as a
measurement, and the pose prior is moved toward it by gains between 0 (keep the prior) and 1 (trust the images). This is
the update step of a Kalman filter, with learned gains in place of unknown covariances.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.geometry.se3 import pose_from_quat_trans, quat_trans_from_pose, relative_pose
from coopmap.models.addons.base import AddOn, Trunk
from coopmap.models.decoding import with_poses
from coopmap.models.layers import LayerNorm
from coopmap.models.priors import POSE_NUMBERS, TRANS_UNIT_M, encode_poses
from coopmap.types import Observation, Prediction

SIGMA_UNITS_M_RAD = 1.0, math.radians(2.0)
"""Unit of accuracies: the network gets their logarithm, clamped at that of :data:`SMALLEST_SIGMA` units."""

SMALLEST_SIGMA = 0.1

NUM_GAINS = 6
"""Position along, below and across the line of sight; rotation about the view's own axes."""


class PoseUpdate(AddOn):
    """Moves the pose prior of each view toward the network's prediction, both in view 0's frame.

    A view's gains come from its features, its pose prior and the accuracy stated for it, its innovation (the difference
    between prediction and pose prior), and the mean of the same over the sample's views: how much predictions and pose
    priors disagree overall indicates how accurate either are. The last layer is zero-initialized: at first every gain
    is one half.

    Args:
        dim: width of the features of a view.
        hidden_dim: width of the network.
    """

    sigma_units: Tensor

    def __init__(self, dim: int, hidden_dim: int = 128) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.image = nn.Linear(dim, hidden_dim)
        self.geometry = nn.Linear(2 * POSE_NUMBERS + 4, hidden_dim)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, NUM_GAINS))
        self.register_buffer("sigma_units", torch.tensor(SIGMA_UNITS_M_RAD), persistent=False)
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, prediction: Prediction, observation: Observation, features: Float[Tensor, "b v c"]) -> Prediction:
        """The prediction with updated poses where there are pose priors; samples without any are unchanged.

        In a sample with pose priors, those of the other views are expressed in view 0's frame: the network's own pose
        of view 0, near the identity once it is trained, is divided out.

        Args:
            prediction: of the network, from images.
            observation: with pose priors; used are those that are metric and whose view 0 has one, too.
            features: of the views, from which the network predicted.
        """
        rough, sigma, known = _pose_priors(observation)
        answer = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
        in_view0 = relative_pose(answer[:, :1], answer)
        innovation = relative_pose(rough, in_view0)
        shift_gain, turn_gain = self._gains(rough, sigma, innovation, known, features).split(3, dim=-1)
        moved = _moved_part_way(rough, innovation, shift_gain, turn_gain)
        quat, trans = quat_trans_from_pose(torch.where(known[..., None, None], moved, in_view0))
        any_known = known[:, 1:].any(dim=1)[:, None, None]
        return with_poses(
            prediction,
            torch.where(any_known, quat, prediction.pose_quat),
            torch.where(any_known, trans, prediction.pose_trans),
        )

    def after_decoding(self, prediction: Prediction, trunk: Trunk, observation: Observation) -> Prediction:
        """See :meth:`forward`; in training without pose priors, too, so that every parameter takes part (DDP)."""
        if observation.pose_prior is None and not self.training:
            return prediction
        features = trunk.levels[-1].mean(dim=(-2, -1)).unflatten(0, observation.rays.shape[:2])
        return self(prediction, observation, features)

    def _gains(
        self,
        rough: Float[Tensor, "b v 4 4"],
        sigma: Float[Tensor, "b v 2"],
        innovation: Float[Tensor, "b v 4 4"],
        known: Bool[Tensor, "b v"],
        features: Float[Tensor, "b v c"],
    ) -> Float[Tensor, "b v 6"]:
        turn, shift = innovation[..., :3, :3], innovation[..., :3, 3]
        one_minus_cos = (3 - turn.diagonal(dim1=-2, dim2=-1).sum(dim=-1)) / 2
        sizes = torch.stack([torch.log1p(shift.square().sum(dim=-1)), one_minus_cos], dim=-1)
        poses = torch.cat([encode_poses(rough, TRANS_UNIT_M), encode_poses(innovation, TRANS_UNIT_M)], dim=-1)
        geometry = torch.cat([poses, sizes, torch.log(sigma / self.sigma_units + SMALLEST_SIGMA)], dim=-1)
        hidden = F.gelu(self.image(self.norm(features)) + self.geometry(geometry))
        weights = known[..., None].to(hidden)
        mean = (weights * hidden).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.sigmoid(self.mlp(torch.cat([hidden, mean.expand_as(hidden)], dim=-1)))


def _pose_priors(
    observation: Observation,
) -> tuple[Float[Tensor, "b v 4 4"], Float[Tensor, "b v 2"], Bool[Tensor, "b v"]]:
    """``T_view0_view``, its accuracy, and the views for which it is known in meters."""
    pose, sigma, shape = observation.pose_prior, observation.pose_sigma, observation.rays.shape[:2]
    known = torch.full(shape, pose is not None, device=observation.rays.device)
    identity = torch.eye(4, device=known.device)
    if pose is None:
        pose = identity.expand(*shape, 4, 4)
    if sigma is None:
        sigma = pose.new_zeros(*shape, 2)
    for mask in (observation.pose_given, observation.pose_is_metric):
        known = known if mask is None else known & mask
    known = known & known[:, :1]
    relative = torch.where(known[..., None, None], relative_pose(pose[:, :1], pose), identity)
    return relative, torch.where(known[..., None], sigma, 0.0), known


def _moved_part_way(
    rough: Float[Tensor, "b v 4 4"],
    innovation: Float[Tensor, "b v 4 4"],
    shift_gain: Float[Tensor, "b v 3"],
    turn_gain: Float[Tensor, "b v 3"],
) -> Float[Tensor, "b v 4 4"]:
    """``T_view0_view`` after a part of the innovation: none of it at gains of 0, all of it at 1.

    Rotations are scaled in the vector part of their quaternion, which has no singularity below half a turn.
    """
    rotation = rough[..., :3, :3]
    axes = _line_of_sight_axes(rough[..., :3, 3]).mT @ rotation  # rows: unit vectors in the view's own frame
    along_axes = (axes @ innovation[..., :3, 3:]).squeeze(-1)
    shift = torch.einsum("bvij,bvi->bvj", axes, shift_gain * along_axes)
    turn, _ = quat_trans_from_pose(innovation)
    turn = F.normalize(torch.cat([turn_gain * turn[..., :3], turn[..., 3:]], dim=-1), dim=-1)
    return rough @ pose_from_quat_trans(turn, shift)


def _line_of_sight_axes(trans: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3 3"]:
    """Columns: level line of sight from view 0 to the view, down, and across.

    Errors differ between them: images determine directions better than distances, and GPS errs sideways and not in
    height. View 0 has no direction to itself; the columns of its level axes are zero, so that it is not moved.
    """
    x, z = trans[..., 0], trans[..., 2]
    length = (x.square() + z.square()).clamp(min=1e-12).sqrt()
    x, z, zero = x / length, z / length, torch.zeros_like(x)
    along = torch.stack([x, zero, z], dim=-1)
    down = torch.stack([zero, zero + 1, zero], dim=-1)
    across = torch.stack([z, zero, -x], dim=-1)
    return torch.stack([along, down, across], dim=-1)
