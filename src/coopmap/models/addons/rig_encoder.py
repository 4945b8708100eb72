"""The calibrated pose of each view in its agent's frame, as a geometric input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coopmap.models.addons.base import AddOn
from coopmap.models.priors import POSE_NUMBERS, GlobalEncoder, encode_poses, where_given
from coopmap.types import Observation


class RigEncoder(GlobalEncoder, AddOn):
    """Adds an encoding of ``Observation.rig_pose`` to the patch tokens of the views for which it is given.

    Args:
        dim: width of the patch tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(POSE_NUMBERS, dim)

    def after_geometry(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Patch tokens with the encoding of their view's rig pose; nothing is added where no rig is known."""
        if observation.rig_pose is None:
            return patches
        features = self(encode_poses(observation.rig_pose))
        return patches + where_given(observation.rig_given, features)[:, :, None]
