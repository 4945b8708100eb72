"""Hooks of add-ons in the network."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from coopmap.types import Observation, Prediction


class Trunk(NamedTuple):
    """Intermediate features of a batch.

    Attributes:
        encoded: patch tokens of the image encoder, row by row.
        levels: the maps that the heads read, views of all samples one after the other: tokens that enter the multi-view
            transformer (with the encodings of given geometry), and its normalized tokens after
            ``info_sharing.intermediate_layers`` and after the last block.
        layers: its normalized patch tokens after each block that some add-on requests, by block number.
        grid: rows and columns of patches.
    """

    encoded: Float[Tensor, "b v n c"]
    levels: list[Float[Tensor, "bv _ h w"]]
    layers: dict[int, Float[Tensor, "b v n d"]]
    grid: tuple[int, int]


class AddOn(nn.Module):
    """A part that the published network lacks. It overrides the hooks that it needs.

    Hooks are called in the order of their definition here, for all add-ons in the order of
    :func:`~coopmap.models.addons.build_addons`. All but :meth:`before_sharing` run outside autocast.

    Attributes:
        layers: blocks of the multi-view transformer whose tokens :meth:`after_decoding` wants in ``Trunk.layers``.
    """

    layers: tuple[int, ...] = ()

    def after_encoder(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Patch tokens of the image encoder, before the encodings of given geometry are added."""
        return patches

    def correct_pose(
        self, pose: Float[Tensor, "b v 4 4"], patches: Float[Tensor, "b v n c"]
    ) -> Float[Tensor, "b v 4 4"]:
        """Pose priors before they are encoded; identity where they are not given."""
        return pose

    def after_geometry(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Patch tokens with the encodings of given geometry, before they are normalized."""
        return patches

    def before_sharing(
        self,
        patches: Float[Tensor, "b v n c"],
        extra_tokens: Float[Tensor, "b v t c"] | None,
        observation: Observation,
    ) -> tuple[Float[Tensor, "b v n c"], Float[Tensor, "b v t c"] | None]:
        """Normalized patch tokens, and class and register tokens, as they enter the multi-view transformer."""
        return patches, extra_tokens

    def after_decoding(self, prediction: Prediction, trunk: Trunk, observation: Observation) -> Prediction:
        """The prediction, and what it was made from."""
        return prediction
