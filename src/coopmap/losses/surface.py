"""Terms on the shape of surfaces, where depth is dense: normals and gradients."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses.inputs import LossInputs, recomputed
from coopmap.losses.robust import log_length
from coopmap.types import Target

MIN_ANGLE, MAX_ANGLE = math.radians(1), math.radians(90)
QUADRATIC_BELOW = math.radians(3)
SIDES = (slice(None, -1), slice(1, None))
"""First and second row (or column) of every 2 x 2 patch."""

GRADIENT_SCALES = (1, 2, 4, 8)
MAX_GRADIENT = 100.0


def dense_pixels(target: Target, cfg: LossConfig) -> Bool[Tensor, "b v h w"]:
    """Valid pixels of the views whose depth is dense enough to have normals and gradients."""
    if cfg.normals == "synthetic":
        return target.valid & target.is_synthetic[:, None, None, None]
    covered = target.non_ambiguous.sum(dim=(-2, -1), keepdim=True)
    known = (target.valid & target.non_ambiguous).sum(dim=(-2, -1), keepdim=True)
    return target.valid & (known >= cfg.dense_share * covered)


def has_surface(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views with a pixel that has normals and gradients."""
    return (dense_pixels(inputs.target, inputs.cfg) & inputs.valid).flatten(2).any(dim=-1)


def normal_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """:func:`normal_angle_loss` of points in the view's frame, on dense pixels; normals have no unit of length."""
    mask = dense_pixels(inputs.target, inputs.cfg) & inputs.valid
    return normal_angle_loss(inputs.prediction.points_view, inputs.target.points_view, mask)


def normal_angle_loss(
    prediction: Float[Tensor, "b v h w 3"], truth: Float[Tensor, "b v h w 3"], mask: Bool[Tensor, "b v h w"]
) -> Float[Tensor, " v"]:
    """Angle between normals of neighboring points, per view, over the patches of the whole batch.

    Upstream ``compute_normal_loss`` (after MoGe): angles are clamped to [1, 90] degrees, which leaves a perfect
    prediction a small constant and no gradient, and the sum over the four corners of a patch is divided by four times
    the longer image side. Two things differ deliberately. Normals are normalized before the angle is taken: products of
    neighboring differences fall below upstream's 1e-12 guard at panorama resolution, and the result is a right angle
    where the surfaces agree. And corners of coincident points, which have no normal, are left out of the sum.
    """
    # Coordinates first: operations on whole maps are several times faster than on a last dimension of three.
    predicted_maps, true_maps = prediction.movedim(-1, 0).contiguous(), truth.movedim(-1, 0).contiguous()
    corners = torch.stack([_corner_mask(mask, row, column) for row, column in itertools.product(SIDES, SIDES)])
    summed = [
        recomputed(_corner_loss, predicted_maps, true_maps, corner, row, column)
        for corner, (row, column) in zip(corners, itertools.product(SIDES, SIDES), strict=True)
    ]
    patches = corners.any(dim=0).sum(dim=(0, 2, 3))
    return torch.stack(summed).sum(0) / (patches * (4 * max(mask.shape[-2:]))).clamp(min=1)


def _corner_loss(
    prediction: Float[Tensor, "3 b v h w"],
    truth: Float[Tensor, "3 b v h w"],
    mask: Bool[Tensor, "b v h-1 w-1"],
    row: slice,
    column: slice,
) -> Float[Tensor, " v"]:
    """Sum over one corner of all patches."""
    predicted, predicted_regular = _unit(_corner_normals(prediction, row, column))
    true, true_regular = _unit(_corner_normals(truth, row, column))
    angle = torch.atan2(_length(_cross(predicted, true)), (predicted * true).sum(0)).clamp(MIN_ANGLE, MAX_ANGLE)
    smooth = torch.where(angle < QUADRATIC_BELOW, 0.5 * angle.square() / QUADRATIC_BELOW, angle - 0.5 * QUADRATIC_BELOW)
    return (smooth * (mask & predicted_regular & true_regular)).sum(dim=(0, 2, 3))


def _corner_normals(maps: Float[Tensor, "3 b v h w"], row: slice, column: slice) -> Float[Tensor, "3 b v h-1 w-1"]:
    """Normals (not unit) from the patch's differences along one of its columns and one of its rows."""
    beside, above = maps[..., column], maps[..., row, :]
    return _cross(beside[..., 1:, :] - beside[..., :-1, :], above[..., 1:] - above[..., :-1])


def _corner_mask(mask: Bool[Tensor, "b v h w"], row: slice, column: slice) -> Bool[Tensor, "b v h-1 w-1"]:
    """Corners whose three pixels are in the mask."""
    beside, above = mask[..., column], mask[..., row, :]
    return beside[..., 1:, :] & beside[..., :-1, :] & above[..., 1:] & above[..., :-1]


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


def _unit(vector: Float[Tensor, "3 *b"]) -> tuple[Float[Tensor, "3 *b"], Bool[Tensor, "*b"]]:
    """Unit vectors, and which of them were not (nearly) zero; the others carry no gradient."""
    length = _length(vector)
    regular = length > 1e-15
    return torch.where(regular, vector / torch.where(regular, length, 1.0), 0.0), regular


def gradient_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """:func:`gradient_matching_loss` on dense pixels."""
    pair = inputs.pair
    mask = dense_pixels(inputs.target, inputs.cfg) & inputs.valid
    return gradient_matching_loss(pair.prediction.points_view[..., 2:], pair.truth.points_view[..., 2:], mask)


def gradient_matching_loss(
    prediction: Float[Tensor, "b v h w 1"], truth: Float[Tensor, "b v h w 1"], mask: Bool[Tensor, "b v h w"]
) -> Float[Tensor, " v"]:
    """Multi-scale gradients of the error in log z (MiDaS, arXiv 1907.01341, eq. 11), per view.

    Takes the z of points in the view's frame (upstream ``compute_gradient_matching_loss`` on log space z).
    """
    error = (log_length(prediction) - log_length(truth))[..., 0]
    return torch.stack(
        [_gradient_loss(error[..., ::step, ::step], mask[..., ::step, ::step]) for step in GRADIENT_SCALES]
    ).sum(0)


def _gradient_loss(error: Float[Tensor, "b v h w"], mask: Bool[Tensor, "b v h w"]) -> Float[Tensor, " v"]:
    """Sum of absolute differences between valid neighbors over the number of valid pixels."""
    across = (error[..., 1:] - error[..., :-1]).abs().clamp(max=MAX_GRADIENT) * (mask[..., 1:] & mask[..., :-1])
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().clamp(max=MAX_GRADIENT)
    down = down * (mask[..., 1:, :] & mask[..., :-1, :])
    return (across.sum(dim=(0, 2, 3)) + down.sum(dim=(0, 2, 3))) / mask.sum(dim=(0, 2, 3)).clamp(min=1)
