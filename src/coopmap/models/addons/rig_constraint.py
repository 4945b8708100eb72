"""The rig as a hard constraint: an agent's cameras keep their calibrated relative pose, whatever the network predicts.

View 0, the front camera of the reference agent, defines the frame of a prediction: its pose is the identity, and that
of its agent is known from calibration. The poses of the other agents follow from the network's poses relative to the
reference agent, with equal weight for all four cameras of each; the frame in which the network predicts does not
matter. (A network trained from random weights on relative poses first learns a frame of its own.)
"""

from __future__ import annotations

from typing import NamedTuple

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.rig import SLOTS
from coopmap.geometry.se3 import quat_trans_from_pose
from coopmap.models.addons.base import AddOn, Trunk
from coopmap.models.decoding import with_poses
from coopmap.types import Observation, Prediction


class _Poses(NamedTuple):
    """Rigid transforms as unit quaternions and translations."""

    quat: Float[Tensor, "*b 4"]
    trans: Float[Tensor, "*b 3"]

    def __matmul__(self, other: _Poses) -> _Poses:
        return _Poses(roma.quat_product(self.quat, other.quat), self.trans + roma.quat_action(self.quat, other.trans))

    def inverse(self) -> _Poses:
        quat = roma.quat_conjugation(self.quat)
        return _Poses(quat, -roma.quat_action(quat, self.trans))


class RigConstraint(AddOn):
    """:func:`constrain_to_rig` as an add-on."""

    def after_decoding(self, prediction: Prediction, trunk: Trunk, observation: Observation) -> Prediction:
        """The prediction with one pose per agent."""
        return constrain_to_rig(prediction, observation)


def constrain_to_rig(prediction: Prediction, observation: Observation) -> Prediction:
    """Replace the poses of single cameras by one pose per agent, composed with its rig.

    Each camera of an agent gives a pose of the agent; translations are averaged, and rotations as quaternions. Then all
    agents are moved rigidly, so that the reference agent is where view 0, the identity, has it. ``points_world``
    follows; everything in the cameras' own frames is unchanged.

    Raises:
        ValueError: if the views are not the cameras of agents (``data.layout=cameras``).
    """
    with torch.autocast(prediction.pose_trans.device.type, enabled=False):
        rig = _rig(observation)
        agents = _agents(prediction, rig)
        view0 = _Poses(rig.quat[:, :1, 0], rig.trans[:, :1, 0])
        reference = _Poses(agents.quat[:, :1], agents.trans[:, :1])
        quat, trans = view0.inverse() @ (reference.inverse() @ agents)
        cameras = _Poses(quat[:, :, None], trans[:, :, None]) @ rig
        quat, trans = (part.flatten(1, 2) for part in cameras)
        return with_poses(prediction, quat, trans)


def _rig(observation: Observation) -> _Poses:
    """``T_agent_camera`` as ``b n k``; views come in slot order, one agent after the other."""
    rig, cameras = observation.rig_pose, len(SLOTS)
    if rig is None:
        raise ValueError("model.rig_constraint=true needs single cameras and their rig: expected data.layout=cameras")
    if rig.shape[1] % cameras:
        raise ValueError(f"expected {cameras} cameras per agent, one agent after the other; got {rig.shape[1]} views")
    return _Poses(*quat_trans_from_pose(rig.unflatten(1, (-1, cameras))))


def _agents(prediction: Prediction, rig: _Poses) -> _Poses:
    """Pose of each agent in the network's frame, from the poses of its cameras."""
    cars = rig.quat.shape[1:3]
    cameras = _Poses(prediction.pose_quat.unflatten(1, cars), prediction.pose_trans.unflatten(1, cars))
    estimates = cameras @ rig.inverse()
    return _Poses(mean_quat(estimates.quat), estimates.trans.mean(dim=2))


HALF_TURN = 1e-6
"""Cosine of half the angle between two rotations up to which they are a half turn apart; above rounding in float32."""


def mean_quat(quat: Float[Tensor, "*b k 4"]) -> Float[Tensor, "*b 4"]:
    """Mean rotation: normalized sum of unit quaternions, each with the sign that is nearer to the first.

    For a small spread this is the chordal mean (Markley et al., 2007); unlike an eigenvector or a singular value
    decomposition it has finite gradients where all are the same.

    Between half turns apart (up to :data:`HALF_TURN`) no sign is nearer: a rotation that is a half turn from the first
    does not count, whatever the signs are, so that the mean depends neither on them nor on rounding.
    """
    cosine = (quat * quat[..., :1, :]).sum(dim=-1, keepdim=True)
    nearer = torch.where(cosine.abs() > HALF_TURN, quat * cosine.sign(), 0.0)
    total = nearer.sum(dim=-2)
    return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-8)
