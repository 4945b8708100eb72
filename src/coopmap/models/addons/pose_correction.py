"""Correction of pose priors by means of the images, before the poses are encoded."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.geometry.se3 import relative_pose, with_bottom_row
from coopmap.models.addons.base import AddOn
from coopmap.models.layers import LayerNorm
from coopmap.models.priors import POSE_NUMBERS, TRANS_UNIT_M, encode_poses


class PoseCorrection(AddOn):
    """Predicts ``T_rough_corrected`` of each view from the pose prior and the image tokens of the view and of view 0.

    The last layer is zero-initialized: at first nothing is corrected. View 0, in whose frame all poses are expressed,
    is not moved.

    Args:
        dim: width of the image tokens.
        hidden_dim: width of the network.
    """

    def __init__(self, dim: int, hidden_dim: int = 256) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.image = nn.Linear(2 * dim, hidden_dim)
        self.pose = nn.Linear(POSE_NUMBERS, hidden_dim)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(hidden_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, 6))
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, pose: Float[Tensor, "b v 4 4"], patches: Float[Tensor, "b v n c"]) -> Float[Tensor, "b v 4 4"]:
        """Corrected ``T_view0_view``.

        Args:
            pose: prior ``T_world_view`` in any frame; identity where it is not given.
            patches: image features.
        """
        rough = relative_pose(pose[:, :1], pose)
        seen = self.norm(patches.mean(dim=2))
        pair = torch.cat([seen, seen[:, :1].expand_as(seen)], dim=-1)
        hidden = self.image(pair) + self.pose(encode_poses(rough, TRANS_UNIT_M))
        turn, shift = self.mlp(hidden).split(3, dim=-1)
        turn = torch.cat([torch.zeros_like(turn[:, :1]), turn[:, 1:]], dim=1)
        shift = torch.cat([torch.zeros_like(shift[:, :1]), shift[:, 1:]], dim=1)
        rotation = roma.special_gramschmidt(torch.stack(_rotated_axes(turn), dim=-1))
        return rough @ with_bottom_row(torch.cat([rotation, TRANS_UNIT_M * shift[..., None]], dim=-1))

    def correct_pose(
        self, pose: Float[Tensor, "b v 4 4"], patches: Float[Tensor, "b v n c"]
    ) -> Float[Tensor, "b v 4 4"]:
        """See :meth:`forward`."""
        return self(pose, patches)


def _rotated_axes(turn: Float[Tensor, "*b 3"]) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b 3"]]:
    """First two columns of ``I + [turn]x``; smooth at zero, where an axis-angle map has no gradient."""
    x, y, z = turn.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack([one, z, -y], dim=-1), torch.stack([-z, one, x], dim=-1)
