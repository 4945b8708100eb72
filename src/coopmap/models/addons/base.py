"""Hooks of add-ons in the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
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
        features: what an add-on keeps of the dense head's fused maps; ``None`` before that has run.
    """

    encoded: Float[Tensor, "b v n c"]
    levels: list[Float[Tensor, "bv _ h w"]]
    layers: dict[int, Float[Tensor, "b v n d"]]
    grid: tuple[int, int]
    features: Float[Tensor, "bv *kept"] | None = None


class AddOn(nn.Module):
    """A part that the published network lacks. It overrides the hooks that it needs.

    Hooks are called in the order of their definition here, for all add-ons in the order of
    :func:`~coopmap.models.addons.build_addons`. All but :meth:`before_sharing` run outside autocast.

    Attributes:
        layers: blocks of the multi-view transformer whose tokens :meth:`after_decoding` wants in ``Trunk.layers``.
        keep: what :meth:`after_decoding` wants in ``Trunk.features`` of the dense head's fused maps (8 x 8 features of
            each patch); one add-on at most.
    """

    layers: tuple[int, ...] = ()
    keep: Callable[[Float[Tensor, "bv c _ _"]], Float[Tensor, "bv *kept"]] | None = None

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


class PatchFeature(AddOn):
    """Learned feature of numbers that are known of each patch, by two layers; zero at first.

    Args:
        num_inputs: numbers per patch.
        dim: width of the patch tokens that it is added to.
        patch_size: side of a patch in pixels.
    """

    HIDDEN_DIM = 128

    def __init__(self, num_inputs: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.hidden = nn.Linear(num_inputs, self.HIDDEN_DIM)
        self.output = nn.Linear(self.HIDDEN_DIM, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def feature(self, numbers: Float[Tensor, "*b n inputs"]) -> Float[Tensor, "*b n dim"]:
        """The feature of each patch."""
        return self.output(F.gelu(self.hidden(numbers)))
