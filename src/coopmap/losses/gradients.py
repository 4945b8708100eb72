"""Gradient term, for dense depth."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.losses.density import dense_pixels
from coopmap.losses.inputs import LossInputs
from coopmap.losses.robust import log_length

GRADIENT_SCALES = (1, 2, 4, 8)
MAX_GRADIENT = 100.0


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
