"""How two quantities are compared."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from coopmap.config.loss import LossConfig
from coopmap.losses.blocks import dot, planes

SMALLEST_LENGTH = 1e-8


def robust_loss(
    prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """General robust loss of the distance between vectors (Barron, arXiv 1701.03077, eq. 1; 0 < alpha < 2)."""
    alpha = cfg.robust_alpha
    squared = ((prediction - truth) / cfg.robust_c).square().sum(-1)
    return ((2 - alpha) / alpha) * ((squared / (2 - alpha) + 1).pow(alpha / 2) - 1)


def robust_log_loss(
    prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """The same in log space: near and far errors of the same proportion have the same weight."""
    return robust_loss(log_length(prediction), log_length(truth), cfg)


def log_length(vector: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Replace the length of each vector by ``log(1 + length)``, keeping its direction (and sign, for one component)."""
    length = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector * (torch.log1p(length) / length.clamp(min=SMALLEST_LENGTH))


def robust_maps(prediction: Float[Tensor, "n w c"], truth: Float[Tensor, "n w c"], cfg: LossConfig) -> Tensor:
    """:func:`robust_loss` of whole maps ``(n, w)``, in few passes."""
    return _RobustMaps.apply(prediction, None, truth, None, cfg.robust_alpha, cfg.robust_c, False)


def robust_log_maps(
    prediction: Float[Tensor, "n w c"],
    unit: Float[Tensor, " n"],
    truth: Float[Tensor, "n w c"],
    true_unit: Float[Tensor, " n"],
    cfg: LossConfig,
) -> Float[Tensor, "n w"]:
    """:func:`robust_log_loss` of maps that are divided by a unit of each row, in few passes."""
    return _RobustMaps.apply(prediction, unit, truth, true_unit, cfg.robust_alpha, cfg.robust_c, True)


class _RobustMaps(torch.autograd.Function):
    """Value and derivative in one go. Coordinates come first: operations on whole planes are several times faster than
    on a last dimension of three.
    """

    @staticmethod
    def forward(
        ctx: Any,
        prediction: Tensor,
        unit: Tensor | None,
        truth: Tensor,
        true_unit: Tensor | None,
        alpha: float,
        c: float,
        in_log: bool,
    ) -> Tensor:
        predicted, true = planes(prediction, unit), planes(truth, true_unit)
        if in_log:
            length, stretch = _stretch(predicted)
            error = true.mul_(_stretch(true)[1]).neg_().addcmul_(predicted, stretch)
        else:
            error = true.neg_().add_(predicted)
        base = dot(error, error).mul_(1 / ((2 - alpha) * c * c)).add_(1)
        power = base.pow(alpha / 2)
        ctx.has_unit = unit is not None
        if any(ctx.needs_input_grad):
            gradient = error.mul_((power / base).mul_(1 / (c * c)))
            if in_log:
                gradient = _through_log(gradient, predicted, length, stretch)
            ctx.save_for_backward(gradient, unit, predicted if ctx.has_unit else None)
        return power.sub_(1).mul_((2 - alpha) / alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradient, unit, predicted = ctx.saved_tensors
        gradient = gradient * factor
        to_unit = None
        if ctx.has_unit:
            gradient /= unit[:, None]
            to_unit = -dot(gradient, predicted).sum(dim=-1)
        return gradient.movedim(0, -1), to_unit, None, None, None, None, None


def _stretch(vector: Float[Tensor, "c *n"]) -> tuple[Tensor, Tensor]:
    """Length, and the factor of :func:`log_length`."""
    length = dot(vector, vector).sqrt_() if len(vector) > 1 else vector[0].abs()
    log = length.log1p()
    length.clamp_(min=SMALLEST_LENGTH)
    return length, log / length


def _through_log(
    gradient: Float[Tensor, "c *n"], vector: Float[Tensor, "c *n"], length: Tensor, stretch: Tensor
) -> Float[Tensor, "c *n"]:
    """Gradient with respect to a vector from that to :func:`log_length` of it."""
    slope = (length + 1).reciprocal_().sub_(stretch).div_(length).div_(length)
    along = dot(gradient, vector).mul_(slope)
    return gradient.mul_(stretch).addcmul_(vector, along)
