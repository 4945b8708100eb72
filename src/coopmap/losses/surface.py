"""Terms on the shape of surfaces, for dense depth: normals and gradients."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses.robust import log_length
from coopmap.types import Target

MIN_ANGLE, MAX_ANGLE = math.radians(1), math.radians(90)
QUADRATIC_BELOW = math.radians(3)
GRADIENT_SCALES = (1, 2, 4, 8)
MAX_GRADIENT = 100.0


def dense_pixels(target: Target, cfg: LossConfig) -> Bool[Tensor, "b v h w"]:
    """Valid pixels of the views whose depth is dense enough to have normals and gradients."""
    if cfg.normals == "synthetic":
        return target.valid & target.is_synthetic[:, None, None, None]
    covered = target.non_ambiguous.sum(dim=(-2, -1), keepdim=True)
    known = (target.valid & target.non_ambiguous).sum(dim=(-2, -1), keepdim=True)
    return target.valid & (known >= cfg.dense_share * covered)


def _corner_normals(points: Float[Tensor, "b v h w 3"]) -> Float[Tensor, "3 2 2 b v h-1 w-1"]:
    """Normals (not unit) at the four corners of each 2 x 2 patch: (left, right) x (top, bottom).

    Coordinates come first: sums over them are then sums of whole maps, several times faster than over a last
    dimension of three.
    """
    maps = points.movedim(-1, 0).contiguous()
    down = maps[..., 1:, :] - maps[..., :-1, :]
    across = maps[..., 1:] - maps[..., :-1]
    vertical = torch.stack([down[..., :-1], down[..., 1:]], dim=1)
    horizontal = torch.stack([across[..., :-1, :], across[..., 1:, :]], dim=1)
    return _cross(vertical[:, :, None], horizontal[:, None])


def _cross(a: Float[Tensor, "3 *b"], b: Float[Tensor, "3 *b"]) -> Float[Tensor, "3 *b"]:
    """Cross product along the first dimension."""
    (ax, ay, az), (bx, by, bz) = a, b
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _length(vector: Float[Tensor, "3 *b"]) -> Float[Tensor, "*b"]:
    """Norm along the first dimension, without gradient at zero."""
    x, y, z = vector
    squared = x * x + y * y + z * z
    positive = squared > 0
    return torch.where(positive, squared, 1.0).sqrt() * positive


def _corner_mask(mask: Bool[Tensor, "b v h w"]) -> Bool[Tensor, "2 2 b v h-1 w-1"]:
    """Corners whose three pixels are in the mask, in the order of :func:`_corner_normals`."""
    down = mask[..., 1:, :] & mask[..., :-1, :]
    across = mask[..., 1:] & mask[..., :-1]
    vertical = torch.stack([down[..., :-1], down[..., 1:]])
    horizontal = torch.stack([across[..., :-1, :], across[..., 1:, :]])
    return vertical[:, None] & horizontal[None]


def _unit(vector: Float[Tensor, "3 *b"]) -> tuple[Float[Tensor, "3 *b"], Bool[Tensor, "*b"]]:
    """Unit vectors, and which of them were not (nearly) zero; the others pass no gradient."""
    length = _length(vector)
    regular = length > 1e-15
    return torch.where(regular, vector / torch.where(regular, length, 1.0), 0.0), regular


def normal_loss(
    prediction: Float[Tensor, "b v h w 3"], truth: Float[Tensor, "b v h w 3"], mask: Bool[Tensor, "b v h w"]
) -> Float[Tensor, " v"]:
    """Angle between normals of neighbouring points, per view, over the patches of the whole batch.

    Upstream ``compute_normal_loss`` (after MoGe): angles are clamped to [1, 90] degrees, which leaves a perfect
    prediction a small constant and no gradient, and the sum over the four corners of a patch is divided by four times
    the longer image side. Two things differ, on purpose. Normals are made unit before the angle is taken: products of
    neighbouring differences fall below upstream's 1e-12 guard at panorama resolution, and a right angle comes out
    where the surfaces agree. And corners of coinciding points, which have no normal, are left out of the sum.
    """
    height, width = mask.shape[-2:]
    predicted, predicted_regular = _unit(_corner_normals(prediction))
    true, true_regular = _unit(_corner_normals(truth))
    sine = _length(_cross(predicted, true))
    angle = torch.atan2(sine, (predicted * true).sum(0)).clamp(MIN_ANGLE, MAX_ANGLE)
    smooth = torch.where(angle < QUADRATIC_BELOW, 0.5 * angle.square() / QUADRATIC_BELOW, angle - 0.5 * QUADRATIC_BELOW)
    corners = _corner_mask(mask)
    patches = corners.flatten(0, 1).any(dim=0).sum(dim=(0, 2, 3))
    summed = (smooth * (corners & predicted_regular & true_regular)).sum(dim=(0, 1, 2, 4, 5))
    return summed / (patches * (4 * max(height, width))).clamp(min=1)


def gradient_matching_loss(
    prediction: Float[Tensor, "b v h w 3"], truth: Float[Tensor, "b v h w 3"], mask: Bool[Tensor, "b v h w"]
) -> Float[Tensor, " v"]:
    """Multi-scale gradients of the error in log z (MiDaS, arXiv 1907.01341, eq. 11), per view.

    Takes points in the view's frame; upstream ``compute_gradient_matching_loss`` on ``log_length`` of their z.
    """
    error = (log_length(prediction[..., 2:]) - log_length(truth[..., 2:]))[..., 0]
    return torch.stack(
        [_gradient_loss(error[..., ::step, ::step], mask[..., ::step, ::step]) for step in GRADIENT_SCALES]
    ).sum(0)


def _gradient_loss(error: Float[Tensor, "b v h w"], mask: Bool[Tensor, "b v h w"]) -> Float[Tensor, " v"]:
    """Sum of absolute differences between valid neighbours over the number of valid pixels."""
    across = (error[..., 1:] - error[..., :-1]).abs().clamp(max=MAX_GRADIENT) * (mask[..., 1:] & mask[..., :-1])
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().clamp(max=MAX_GRADIENT)
    down = down * (mask[..., 1:, :] & mask[..., :-1, :])
    return (across.sum(dim=(0, 2, 3)) + down.sum(dim=(0, 2, 3))) / mask.sum(dim=(0, 2, 3)).clamp(min=1)
