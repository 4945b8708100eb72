"""Encoders of geometric inputs (rays, depth, poses) and the normalizations that precede them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.geometry.se3 import quat_trans_from_pose, relative_pose
from coopmap.geometry.step_algebra import identity
from coopmap.models.layers import LayerNorm
from coopmap.types import Observation

EPSILON = 1e-8
"""Guards divisions and logarithms; affects the released models' outputs."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a 1x1 shortcut."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_dim, out_dim, 3, padding=1)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, padding=1)
        self.shortcut = nn.Conv2d(in_dim, out_dim, 1)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """The maps at the width of the output."""
        return F.gelu(self.conv2(F.gelu(self.conv1(x))) + self.shortcut(x))


class DenseEncoder(nn.Module):
    """Patch features of a map with ``channels`` values per pixel."""

    norm_layer: nn.LayerNorm

    def __init__(self, channels: int, dim: int, patch_size: int, hidden_dims: Sequence[int]) -> None:
        super().__init__()
        first, second, third = hidden_dims
        self.unshuffle = nn.PixelUnshuffle(patch_size)
        self.conv_in = nn.Conv2d(channels * patch_size**2, first, 3, padding=1)
        self.encoder = nn.Sequential(
            ResidualBlock(first, second), ResidualBlock(second, third), nn.Conv2d(third, dim, 1)
        )
        self.norm_layer = LayerNorm(dim)

    def forward(self, maps: Float[Tensor, "*b channels h w"]) -> Float[Tensor, "*b n dim"]:
        """One token per patch."""
        features = self.encoder(self.conv_in(self.unshuffle(maps.flatten(0, -4))))
        return self.norm_layer(features.flatten(2).transpose(1, 2)).unflatten(0, maps.shape[:-3])


class GlobalEncoder(nn.Module):
    """Feature of a vector per view."""

    norm_layer: nn.LayerNorm

    def __init__(self, channels: int, dim: int, hidden_dims: Sequence[int] = (128, 256, 512)) -> None:
        super().__init__()
        # Upstream nests the sequence once per layer, which shows in its parameter names.
        first, *rest = hidden_dims
        encoder = nn.Sequential(nn.Linear(channels, first), nn.GELU())
        for in_dim, out_dim in zip(hidden_dims[:-1], rest, strict=True):
            encoder = nn.Sequential(encoder, nn.Linear(in_dim, out_dim), nn.GELU())
        self.encoder = nn.Sequential(encoder, nn.Linear(hidden_dims[-1], dim))
        self.norm_layer = LayerNorm(dim)

    def forward(self, vectors: Float[Tensor, "*b channels"]) -> Float[Tensor, "*b dim"]:
        """One token per vector."""
        return self.norm_layer(self.encoder(vectors))


def silence(encoder: DenseEncoder | GlobalEncoder) -> None:
    """Zero-init an encoder: its last layer, the norm, starts at zero, so that it has no influence at first."""
    nn.init.zeros_(encoder.norm_layer.weight)
    nn.init.zeros_(encoder.norm_layer.bias)


def normalize_depth(depth: Float[Tensor, "*b h w"]) -> tuple[Float[Tensor, "*b h w"], Float[Tensor, "*b 1"]]:
    """Log-compressed depth relative to the mean known depth of each map, and the logarithm of that mean.

    Zeros mean unknown and stay zero.
    """
    known = depth > 0
    mean = (depth * known).sum(dim=(-2, -1)) / (known.sum(dim=(-2, -1)) + EPSILON)
    mean = mean.clamp(min=EPSILON)[..., None]
    return torch.log1p(depth / mean[..., None]), torch.log(mean + EPSILON)


def normalize_translations(
    trans: Float[Tensor, "*b v 3"],
) -> tuple[Float[Tensor, "*b v 3"], Float[Tensor, "*b 1 1"]]:
    """Translations over the mean length of those that are not zero, and the logarithm of that mean."""
    lengths = trans.norm(dim=-1)
    mean = lengths.sum(dim=-1) / ((lengths > 0).sum(dim=-1) + EPSILON)
    mean = mean.clamp(min=EPSILON)[..., None, None]
    return trans / mean, torch.log(mean + EPSILON)


def pose_in_view0(pose: Float[Tensor, "*b v 4 4"]) -> tuple[Float[Tensor, "*b v 4"], Float[Tensor, "*b v 3"]]:
    """Quaternions (``w >= 0``) and translations of ``T_view0_view`` from ``T_world_view``."""
    return quat_trans_from_pose(relative_pose(pose[..., :1, :, :], pose))


def depth_features(
    encoder: DenseEncoder, scale_encoder: GlobalEncoder, observation: Observation
) -> Float[Tensor, "b v n c"]:
    """Encoding of measured depth and of its scale; zero for views without any, or whose depth may not be used."""
    depth = observation.depth_prior
    if depth is None:
        depth = torch.zeros_like(observation.rays[..., 0])
    known = (depth > 0).any(dim=-1).any(dim=-1)
    given = known if observation.depth_given is None else observation.depth_given & known
    depth, log_mean = normalize_depth(depth)
    scale = where_given(observation.depth_is_metric, scale_encoder(log_mean))
    return where_given(given, encoder(depth[:, :, None]) + scale[:, :, None])


def given_poses(observation: Observation) -> tuple[Float[Tensor, "b v 4 4"], Bool[Tensor, "b v"] | None]:
    """Prior ``T_world_view``, identity where there is none, and the views that have one (``None``: all).

    Poses are used relative to view 0: where it has no prior, no view has.
    """
    pose, given = observation.pose_prior, observation.pose_given
    if pose is None:
        shape, device = observation.images.shape[:2], observation.images.device
        pose = torch.eye(4, device=device).expand(*shape, 4, 4)
        return pose, pose.new_zeros(shape, dtype=torch.bool)
    if given is None:
        return pose, None
    given = given & given[:, :1]
    return torch.where(given[..., None, None], pose, identity(4, pose)), given


def pose_features(
    rotation_encoder: GlobalEncoder,
    translation_encoder: GlobalEncoder,
    scale_encoder: GlobalEncoder,
    pose: Float[Tensor, "b v 4 4"],
    given: Bool[Tensor, "b v"] | None,
    is_metric: Bool[Tensor, "b v"] | None,
) -> Float[Tensor, "b v c"]:
    """Encoding of prior ``T_world_view``, relative to view 0, and of their scale; zero where they are not given."""
    quat, trans = pose_in_view0(pose)
    trans, log_mean = normalize_translations(where_given(given, trans))  # unknown ones must not affect the mean
    scale = where_given(is_metric, scale_encoder(log_mean).expand(*quat.shape[:2], -1))
    return where_given(given, rotation_encoder(quat) + translation_encoder(trans) + scale)


def where_given(given: Bool[Tensor, "b v"] | None, features: Float[Tensor, "b v *c"]) -> Float[Tensor, "b v *c"]:
    """Zero the features of views for which an input is not given; ``None`` means that all have it."""
    if given is None:
        return features
    return features * given.reshape(*given.shape, *[1] * (features.ndim - given.ndim))


POSE_NUMBERS = 9
"""Length of the vector that :func:`encode_poses` makes of a pose."""

TRANS_UNIT_M = 10.0
"""Unit of relative positions of agents, as network inputs."""


def encode_poses(pose: Float[Tensor, "*b 4 4"], unit_m: float = 1.0) -> Float[Tensor, "*b 9"]:
    """Right and optical axes, and position in units of the given length in meters.

    Not quaternions: a half turn, such as the rear camera's, has two, and rounding decides which has ``w >=
    0``. Two axes are continuous (Zhou et al., arXiv 1812.07035).
    """
    return torch.cat([pose[..., :3, 0], pose[..., :3, 2], pose[..., :3, 3] / unit_m], dim=-1)
