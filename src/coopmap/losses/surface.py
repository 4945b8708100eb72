"""Terms on the shape of surfaces, where depth is dense: normals and gradients."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.losses.blocks import sum_rows
from coopmap.losses.inputs import LossInputs
from coopmap.losses.normals import normal_angle_loss

GRADIENT_SCALES = (1, 2, 4, 8)
MAX_GRADIENT = 100.0


def has_surface(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views with a pixel that has normals and gradients."""
    return inputs.dense.flatten(2).any(dim=-1)


def normal_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """:func:`normal_angle_loss` of points in the view's frame, on dense pixels; normals have no unit of length."""
    return normal_angle_loss(inputs.prediction.points_view, inputs.pair.truth.metric.points_view, inputs.dense)


def gradient_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """:func:`gradient_matching_loss` on dense pixels."""
    prediction, truth = inputs.pair.prediction, inputs.pair.truth
    (predicted, unit), (true, true_unit) = (
        (side.metric.points_view[..., 2:], side.unit_m) for side in (prediction, truth)
    )
    return gradient_matching_loss(predicted, true, inputs.dense, unit, true_unit)


def gradient_matching_loss(
    prediction: Float[Tensor, "b v h w 1"],
    truth: Float[Tensor, "b v h w 1"],
    mask: Bool[Tensor, "b v h w"],
    unit: Float[Tensor, "b v"] | None = None,
    true_unit: Float[Tensor, "b v"] | None = None,
) -> Float[Tensor, " v"]:
    """Multi-scale gradients of the error in log z (MiDaS, arXiv 1907.01341, eq. 11), per view.

    Takes the z of points in the view's frame (upstream ``compute_gradient_matching_loss`` on log space z), in units of
    their own.
    """
    ones = truth.new_ones(mask.shape[:2])
    units = tuple(ones if one is None else one for one in (unit, true_unit))
    counts = [mask[..., ::step, ::step].sum(dim=(0, 2, 3)).clamp(min=1) for step in GRADIENT_SCALES]
    shares = [(1 / count.to(truth)).expand(mask.shape[:2]) for count in counts]
    (sums,) = sum_rows(
        partial(_gradient_rows, mask.shape[2]),
        (prediction, truth, mask),
        (*units, *shares),
        where=mask,
        whole_views=True,
    )
    return sums.sum(dim=0)


def _gradient_rows(
    height: int,
    prediction: Float[Tensor, "n w 1"],
    truth: Float[Tensor, "n w 1"],
    mask: Bool[Tensor, "n w"],
    unit: Float[Tensor, " n"],
    true_unit: Float[Tensor, " n"],
    *shares: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    error = _signed_log(prediction[..., 0] / unit[:, None]) - _signed_log(truth[..., 0] / true_unit[:, None])
    error, mask = (rows.unflatten(0, (-1, height)) for rows in (error, mask))
    sums = []
    for step, share in zip(GRADIENT_SCALES, shares, strict=True):
        views = _gradient_loss(error[..., ::step, ::step], mask[..., ::step, ::step])
        sums.append(views * share[::height])
    total = torch.stack(sums).sum(0)
    return torch.nn.functional.pad(total[:, None], (0, height - 1)).flatten()


def _signed_log(value: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
    """:func:`~coopmap.losses.robust.log_length` of one component."""
    return torch.log1p(value.abs()).copysign(value)


def _gradient_loss(error: Float[Tensor, "k h w"], mask: Bool[Tensor, "k h w"]) -> Float[Tensor, " k"]:
    """Sum of absolute differences between valid neighbors."""
    across = (error[..., 1:] - error[..., :-1]).abs().clamp(max=MAX_GRADIENT) * (mask[..., 1:] & mask[..., :-1])
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().clamp(max=MAX_GRADIENT)
    down = down * (mask[..., 1:, :] & mask[..., :-1, :])
    return across.sum(dim=(1, 2)) + down.sum(dim=(1, 2))
