"""What the fusion blocks have in common: cameras in, tokens of one panorama per agent out.

A block works before the patch embedding on warped images (:class:`ImageFusion`), or after it on features of the
original cameras (:class:`FeatureFusion`). Either way the rest of the model sees a panorama: its position embedding,
one class token, one token per patch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.dinov2 import PatchEmbed, VisionTransformer
from coopmap.models.fusion.cameras import Cameras
from coopmap.models.fusion.injection import PoseInjection
from coopmap.models.layers import run


class Fusion(nn.Module, ABC):
    """A fusion block.

    Attributes:
        layout: data layout (``data.layout``) that it works on.
        first_block: encoder block that processes its tokens first.
        injection: adds the poses of the cameras to the panorama's tokens after the encoder.
    """

    layout: str
    first_block: int = 0
    injection: PoseInjection | None

    def __init__(self) -> None:
        super().__init__()
        self.injection = None

    @abstractmethod
    def forward(
        self, cameras: Cameras, encoder: VisionTransformer, checkpointing: bool = False
    ) -> Float[Tensor, "b t+n c"]:
        """Tokens of one panorama per agent, with positions, before encoder block ``first_block``.

        Args:
            cameras: as :func:`~coopmap.models.fusion.cameras.group_cameras` gives them for ``layout``.
            encoder: whose patch embedding, position embedding and first blocks are used.
            checkpointing: recompute activations in the backward pass.
        """
        ...


class ImageFusion(Fusion):
    """Fuses images that were warped onto the panorama."""

    layout = "warped"

    def forward(
        self, cameras: Cameras, encoder: VisionTransformer, checkpointing: bool = False
    ) -> Float[Tensor, "b t+n c"]:
        """See :meth:`Fusion.forward`."""
        patches = run(self.embed, cameras, encoder.patch_embed, checkpointing=checkpointing)
        return encoder.place(patches, encoder.patch_grid(cameras.images))

    @abstractmethod
    def embed(self, cameras: Cameras, patch_embed: PatchEmbed) -> Float[Tensor, "b n c"]:
        """Patch embeddings of the panorama."""
        ...


class FeatureFusion(Fusion):
    """Fuses patch features of the cameras, aligned with the patches of the panorama.

    Cells that no camera sees get the bias of the patch embedding: of one convolution, the embedding of the mean color,
    like the empty patches of a stitched panorama; of a convolutional stem, a learned vector.

    Args:
        shared_blocks: encoder blocks that run on each camera first. Their input carries the positions of patches in the
            camera; these are subtracted before fusion, and those in the panorama added afterward, so that 0 blocks is
            the same with nothing in between.
    """

    layout = "grouped"

    def __init__(self, shared_blocks: int) -> None:
        super().__init__()
        self.first_block = shared_blocks

    def forward(
        self, cameras: Cameras, encoder: VisionTransformer, checkpointing: bool = False
    ) -> Float[Tensor, "b t+n c"]:
        """See :meth:`Fusion.forward`."""
        maps, leading = self._camera_features(cameras, encoder, checkpointing)
        fused = run(self.fuse, maps, cameras, checkpointing=checkpointing)
        seen = cameras.seen.any(dim=1).flatten(1)[..., None]
        empty = encoder.patch_embed.proj.bias
        assert empty is not None
        return encoder.place(
            torch.where(seen, fused, empty), (cameras.angle.shape[-2], cameras.angle.shape[-1]), leading
        )

    @abstractmethod
    def fuse(self, maps: Float[Tensor, "b k c h w"], cameras: Cameras) -> Float[Tensor, "b n c"]:
        """Features of the panorama's patches; those of cells that no camera sees do not matter."""
        ...

    def _camera_features(self, cameras: Cameras, encoder: VisionTransformer, checkpointing: bool) -> _CameraFeatures:
        images = cameras.images.flatten(0, 1)
        grid, leading = encoder.patch_grid(images), None
        if self.first_block == 0:
            patches = encoder.patch_embed(images)
        else:
            tokens = encoder.run_blocks(encoder.embed(images), 0, self.first_block, checkpointing)
            count = tokens.shape[1] - grid[0] * grid[1]
            patches = tokens[:, count:] - encoder.position_embedding(*grid)
            leading = _mean_of_seeing(tokens[:, :count].unflatten(0, cameras.images.shape[:2]), cameras, encoder)
        maps = patches.transpose(1, 2).unflatten(2, grid).unflatten(0, cameras.images.shape[:2])
        return _CameraFeatures(maps, leading)


class _CameraFeatures(NamedTuple):
    maps: Float[Tensor, "b k c h w"]
    leading: Float[Tensor, "b t c"] | None


def _mean_of_seeing(
    tokens: Float[Tensor, "b k t c"], cameras: Cameras, encoder: VisionTransformer
) -> Float[Tensor, "b t c"]:
    """Class and register tokens averaged over the cameras that see anything; as they start where none does."""
    sees = cameras.seen.flatten(2).any(dim=2)[..., None, None]
    mean = (tokens * sees).sum(dim=1) / sees.sum(dim=1).clamp(min=1)
    return torch.where(sees.any(dim=1), mean, encoder.leading_tokens())
