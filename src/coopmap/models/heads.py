"""Prediction heads: dense (DPT, Ranftl et al., arXiv 2103.13413), pose and scale; attribute names are UniCeption's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.layers import run

DENSE_CHANNELS = (3, 1, 1, 1)
"""What the dense head predicts per pixel: ray, log depth, log (confidence - 1), mask logit."""


def resize(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear resizing with aligned corners."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def directly(process: Callable[[Tensor], Tensor], level: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c _ _"]:
    """The level after ``process``, which takes every second column."""
    return process(level)


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map plus what two convolutions make of it."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Adds a finer level to the coarser ones and doubles the resolution."""

    def __init__(self, dim: int, has_skip: bool = True) -> None:
        super().__init__()
        self.resize = resize
        self.out_conv = nn.Conv2d(dim, dim, 1)
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(dim)
        self.resConfUnit2 = ResidualConvUnit(dim)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c 2h 2w"]:
        """The next finer map.

        Args:
            x: the coarser levels, fused.
            skip: the level of the same resolution; none at the coarsest.
        """
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # Upstream upsamples before the 1x1 convolution; the two commute, and this order takes a quarter of the time.
        x = self.out_conv(self.resConfUnit2(x))
        return self.resize(x, (2 * x.shape[-2], 2 * x.shape[-1]))


class DPTScratch(nn.Module):
    """Convolutions that bring the levels to one width, and the blocks that fuse them."""

    def __init__(self, layer_dims: Sequence[int], feature_dim: int) -> None:
        super().__init__()
        # Upstream registers these convolutions three times over (here twice, and in ``DPTFeature.input_process``), and
        # its training files hold every name.
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(dim, feature_dim, 3, padding=1, bias=False) for dim in layer_dims
        )
        self.layer_rn = nn.ModuleList([self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn])
        self.refinenet1 = FusionBlock(feature_dim)
        self.refinenet2 = FusionBlock(feature_dim)
        self.refinenet3 = FusionBlock(feature_dim)
        self.refinenet4 = FusionBlock(feature_dim, has_skip=False)


class DPTFeature(nn.Module):
    """Fuses four levels of patch features into one map of eight times the patch resolution."""

    def __init__(
        self, input_dims: Sequence[int], layer_dims: Sequence[int], feature_dim: int, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing, self.sample = checkpointing, directly
        self.scratch = DPTScratch(layer_dims, feature_dim)
        to_layer = [nn.Conv2d(*dims, 1) for dims in zip(input_dims, layer_dims, strict=True)]
        quadruple = nn.ConvTranspose2d(layer_dims[0], layer_dims[0], 4, stride=4)
        double = nn.ConvTranspose2d(layer_dims[1], layer_dims[1], 2, stride=2)
        halve = nn.Conv2d(layer_dims[3], layer_dims[3], 3, stride=2, padding=1)
        self.input_process = nn.ModuleList(
            nn.Sequential(nn.Sequential(*resample), to_feature)
            for resample, to_feature in zip(
                [(to_layer[0], quadruple), (to_layer[1], double), (to_layer[2],), (to_layer[3], halve)],
                self.scratch.layer_rn,
                strict=True,
            )
        )

    def forward(self, levels: Sequence[Float[Tensor, "b _ h w"]]) -> Float[Tensor, "b c 8h 8w"]:
        """The fused map.

        Args:
            levels: finest first, each on the patch grid.
        """
        *fine, coarsest = levels
        x1, x2, x3 = (
            run(process, level, checkpointing=self.checkpointing)
            for process, level in zip(self.input_process[:3], fine, strict=True)
        )
        scratch = self.scratch
        x = self.sample(self._coarsest, coarsest)
        x = x[..., : x3.shape[-2], : x3.shape[-1]]  # an odd number of patches was rounded up when halved
        x = run(scratch.refinenet3, x, x3, checkpointing=self.checkpointing)
        x = run(scratch.refinenet2, x, x2, checkpointing=self.checkpointing)
        return run(scratch.refinenet1, x, x1, checkpointing=self.checkpointing)

    def _coarsest(self, level: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c _ _"]:
        x = run(self.input_process[3], level, checkpointing=self.checkpointing)
        return run(self.scratch.refinenet4, x, checkpointing=self.checkpointing)


class DPTRegressor(nn.Module):
    """Resizes the fused map to the image and predicts the dense channels."""

    def __init__(self, feature_dim: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing, self.resize = checkpointing, resize
        hidden_dim = feature_dim // 2
        self.conv1 = nn.Conv2d(feature_dim, hidden_dim, 3, padding=1)
        self.conv2 = nn.Sequential(
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, sum(DENSE_CHANNELS), 1),
        )

    def forward(self, features: Float[Tensor, "b c _ _"], image_size: tuple[int, int]) -> Float[Tensor, "b 6 h w"]:
        """Dense channels (``DENSE_CHANNELS``), raw.

        Args:
            features: of :class:`DPTFeature`.
            image_size: height and width in pixels.
        """
        x = self.resize(self.conv1(features), image_size)
        return run(self.conv2, x, checkpointing=self.checkpointing)


class ResConvBlock(nn.Module):
    """Three 1x1 convolutions with ReLU on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Conv2d(dim, dim, 1)
        self.res_conv2 = nn.Conv2d(dim, dim, 1)
        self.res_conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The map plus its residual branch."""
        return x + F.relu(self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(x))))))


class PoseHead(nn.Module):
    """Translation and quaternion of a view from the mean of its patches (Reloc3r, MaRePo)."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(input_dim, hidden_dim, 1)
        self.res_conv = nn.ModuleList(ResConvBlock(hidden_dim) for _ in range(2))
        self.more_mlps = nn.Sequential(
            nn.Linear(hidden_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
        )
        self.fc_t = nn.Linear(hidden_dim, 3)
        self.fc_rot = nn.Linear(hidden_dim, 4)

    def forward(self, features: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 4"]]:
        """Translation in units of the metric scale, and quaternion ``(x, y, z, w)`` before normalization."""
        x = self.proj(features)
        for block in self.res_conv:
            x = block(x)
        x = self.more_mlps(x.mean(dim=(-2, -1)))
        return self.fc_t(x), self.fc_rot(x)


class ScaleHead(nn.Module):
    """Logarithm of the metric scale from the scale token."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(input_dim, hidden_dim)
        self.mlp = nn.ModuleList(nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU()) for _ in range(2))
        self.output_proj = nn.Linear(hidden_dim, 1)

    def forward(self, token: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Logarithm of the meters per unit."""
        x = self.proj(token)
        for layer in self.mlp:
            x = layer(x)
        return self.output_proj(x)[..., 0]


class DenseHead(nn.Sequential):
    """:class:`DPTFeature` and :class:`DPTRegressor` under the names that the released weights use.

    Without gradients the views are processed in chunks, since the activations of this head, not those of the
    transformers, limit how many views fit into memory.

    Attributes:
        maps_held: bound on full-resolution maps that are alive at once in either half, workspaces included.
        max_maps_at_once: views per group when there are no gradients; ``None`` = as many as fit into half of the free
            memory of a GPU, one on the CPU.
    """

    max_maps_at_once: int | None = None
    maps_held: int = 4

    def __init__(self, feature: DPTFeature, regressor: DPTRegressor) -> None:
        super().__init__(feature, regressor)
        self._channels = regressor.conv1.in_channels, regressor.conv1.out_channels

    def forward(  # type: ignore[override]
        self,
        levels: Sequence[Float[Tensor, "b _ _ _"]],
        image_size: tuple[int, int],
        keep: Callable[[Float[Tensor, "b c _ _"]], Float[Tensor, "b *kept"]] | None = None,
    ) -> tuple[Float[Tensor, "b 6 h w"], Float[Tensor, "b *kept"] | None]:
        """Raw dense channels at the size of the image, and what ``keep`` makes of the fused maps.

        Args:
            levels: see :class:`DPTFeature`.
            image_size: see :class:`DPTRegressor`.
            keep: of a group of views; whole maps of all views at once would not fit.
        """
        feature, regressor = self
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            fused = feature(levels)
            return regressor(fused, image_size), None if keep is None else keep(fused)
        group = self.max_maps_at_once or self._group_that_fits(levels, image_size)
        dense, kept = [], []
        for part in zip(*(level.split(group) for level in levels), strict=True):
            fused = feature(part)
            dense.append(regressor(fused, image_size))
            kept += [] if keep is None else [keep(fused)]
        return torch.cat(dense), torch.cat(kept) if kept else None

    def _group_that_fits(self, levels: Sequence[Float[Tensor, "b c h w"]], image_size: tuple[int, int]) -> int:
        device = levels[0].device
        if device.type != "cuda":
            return 1
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        fused, hidden = 64 * levels[0].shape[-2:].numel(), image_size[0] * image_size[1]  # pixels
        values = self.maps_held * (fused * self._channels[0] + hidden * self._channels[1])
        return max(1, free // 2 // (levels[0].element_size() * values))
