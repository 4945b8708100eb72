"""Embedding of the agent and slot of a view, for models that attend over single cameras."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.geometry.rig import SLOTS
from coopmap.models.addons.base import AddOn
from coopmap.types import Observation


class ViewEmbedding(AddOn):
    """Learned features of slot (front, left, rear, right) and agent (reference or other), zero-init."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.slot = nn.Parameter(torch.zeros(len(SLOTS), dim))
        self.agent = nn.Parameter(torch.zeros(2, dim))

    def forward(self, observation: Observation) -> Float[Tensor, "b v c"]:
        """One feature per view.

        Raises:
            ValueError: if the views are not single cameras.
        """
        if observation.slot is None or observation.agent is None:
            raise ValueError("model.view_embedding=true needs single cameras as views: expected data.layout=cameras")
        is_other = (observation.agent != observation.agent[:, :1]).long()
        return self.slot[observation.slot.long()] + self.agent[is_other]

    def before_sharing(
        self,
        patches: Float[Tensor, "b v n c"],
        extra_tokens: Float[Tensor, "b v t c"] | None,
        observation: Observation,
    ) -> tuple[Float[Tensor, "b v n c"], Float[Tensor, "b v t c"] | None]:
        """Add its feature to all tokens of a view."""
        features = self(observation)[:, :, None]
        return patches + features, None if extra_tokens is None else extra_tokens + features
