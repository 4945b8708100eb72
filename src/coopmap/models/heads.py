"""Prediction heads: dense (DPT, Ranftl et al., arXiv 2103.13413), pose and scale; attribute names are UniCeption's."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.layers import run

DENSE_CHANNELS = (3, 1, 1, 1)
"""What the dense head predicts per pixel: ray, log depth, log (confidence - 1), mask logit."""


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Adds a finer level to the coarser ones and doubles the resolution."""

    def __init__(self, dim: int, has_skip: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(dim, dim, 1)
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(dim)
        self.resConfUnit2 = ResidualConvUnit(dim)

    def forward(
        self, x: Float[Tensor, "b c h w"], skip: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c 2h 2w"]:
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # Upstream upsamples before the 1x1 convolution; the two commute, and this order costs a quarter.
        x = self.out_conv(self.resConfUnit2(x))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


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
        self.checkpointing = checkpointing
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
        x1, x2, x3, x4 = (
            run(process, level, checkpointing=self.checkpointing)
            for process, level in zip(self.input_process, levels, strict=True)
        )
        scratch = self.scratch
        x = run(scratch.refinenet4, x4, checkpointing=self.checkpointing)
        x = x[..., : x3.shape[-2], : x3.shape[-1]]  # an odd number of patches was rounded up when halved
        x = run(scratch.refinenet3, x, x3, checkpointing=self.checkpointing)
        x = run(scratch.refinenet2, x, x2, checkpointing=self.checkpointing)
        return run(scratch.refinenet1, x, x1, checkpointing=self.checkpointing)


class DPTRegressor(nn.Module):
    """Resizes the fused map to the image and predicts the dense channels."""

    def __init__(self, feature_dim: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        hidden_dim = feature_dim // 2
        self.conv1 = nn.Conv2d(feature_dim, hidden_dim, 3, padding=1)
        self.conv2 = nn.Sequential(
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden_dim, sum(DENSE_CHANNELS), 1)
        )

    def forward(self, features: Float[Tensor, "b c _ _"], image_size: tuple[int, int]) -> Float[Tensor, "b 6 h w"]:
        x = F.interpolate(self.conv1(features), size=image_size, mode="bilinear", align_corners=True)
        return run(self.conv2, x, checkpointing=self.checkpointing)


class ResConvBlock(nn.Module):
    """Three 1x1 convolutions with ReLU on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Conv2d(dim, dim, 1)
        self.res_conv2 = nn.Conv2d(dim, dim, 1)
        self.res_conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
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
        x = self.proj(token)
        for layer in self.mlp:
            x = layer(x)
        return self.output_proj(x)[..., 0]


class DenseHead(nn.Sequential):
    """:class:`DPTFeature` and :class:`DPTRegressor` under the names that the released weights use."""

    def forward(  # type: ignore[override]
        self, levels: Sequence[Float[Tensor, "b _ _ _"]], image_size: tuple[int, int]
    ) -> Float[Tensor, "b 6 h w"]:
        feature, regressor = self
        return regressor(feature(levels), image_size)
