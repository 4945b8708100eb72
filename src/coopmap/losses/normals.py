"""Angles between surface normals, computed together with their gradients on a block of rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from coopmap.losses.blocks import dot, planes, sum_rows

MIN_ANGLE, MAX_ANGLE = math.radians(1), math.radians(90)
QUADRATIC_BELOW = math.radians(3)
SHORTEST_NORMAL = 1e-15
NEXT = ((1, 2), (2, 0), (0, 1))
"""For each coordinate of a cross product, those that are multiplied."""


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
    follows = mask.clone()  # pixels with one above them
    follows[:, :, 0].fill_(False)
    angles, patches = sum_rows(_row_angles, (prediction, truth, mask, follows), where=mask, halo=1)
    return angles.sum(dim=0) / (patches.sum(dim=0) * (4 * max(mask.shape[-2:]))).clamp(min=1)


def _row_angles(
    prediction: Float[Tensor, "m w 3"],
    truth: Float[Tensor, "m w 3"],
    mask: Bool[Tensor, "m w"],
    follows: Bool[Tensor, "m w"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Sum of the angles of each row of patches, and their number."""
    corners = _corner_masks(mask, follows)
    patches = corners.flatten(0, 1).any(dim=0).sum(dim=-1).to(prediction.dtype)
    return _Angles.apply(prediction, truth, corners), patches


def _corner_masks(mask: Bool[Tensor, "m w"], follows: Bool[Tensor, "m w"]) -> Bool[Tensor, "2 2 n w-1"]:
    """Corners (row, column) of each patch whose three pixels are in the mask."""
    above = mask[:, 1:] & mask[:, :-1]
    beside = mask[:-1] & follows[1:]
    rows = torch.stack([above[:-1], above[1:]])
    columns = torch.stack([beside[:, :-1], beside[:, 1:]])
    return rows[:, None] & columns


class _Angles(torch.autograd.Function):
    """Smoothed angles of all corners of the patches between consecutive rows, summed along each row.

    With unit normals ``n`` and ``m`` and the angle ``a`` between them, ``m - n cos a`` has the length ``sin a``, and
    is, but for a factor, the derivative of ``-a`` with respect to the normal before it was normalized.
    """

    @staticmethod
    def forward(
        ctx: Any, prediction: Float[Tensor, "m w 3"], truth: Float[Tensor, "m w 3"], counted: Bool[Tensor, "2 2 n w-1"]
    ) -> Float[Tensor, " n"]:
        down, across = _edges(planes(prediction))
        normal = _cross(down[:, None], across[:, :, None])
        inverse = _inverse_length(normal)
        normal *= inverse
        true = _cross(*(edges.unsqueeze(axis) for edges, axis in zip(_edges(planes(truth)), (1, 2), strict=True)))
        true_inverse = _inverse_length(true)
        true *= true_inverse

        cosine = dot(normal, true)
        aside = torch.addcmul(true, normal, cosine, value=-1)
        sine = dot(aside, aside).sqrt_()
        angle = torch.atan2(sine, cosine)
        weight = (counted & (inverse > 0) & (true_inverse > 0)).to(angle.dtype)
        clamped = angle.clamp(MIN_ANGLE, MAX_ANGLE)
        quadratic = clamped.clamp(max=QUADRATIC_BELOW)
        # 0.5 a^2 / b up to b, a - 0.5 b beyond
        smooth = (quadratic.square() / (2 * QUADRATIC_BELOW)).add_(clamped).sub_(quadratic)
        if ctx.needs_input_grad[0]:
            inside = angle == clamped
            factor = quadratic.mul_(weight).mul_(inverse).mul_(inside).div_(sine.clamp_(min=MIN_ANGLE / 2))
            gradient = aside.mul_(factor.mul_(-1 / QUADRATIC_BELOW))
            ctx.save_for_backward(gradient, down, across)
        return smooth.mul_(weight).sum(dim=(0, 1, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Float[Tensor, " n"]) -> tuple[Float[Tensor, "m w 3"], None, None]:
        gradient, down, across = ctx.saved_tensors
        gradient = gradient * factor[:, None]
        to_down = _cross(across[:, :, None], gradient).sum(dim=1)
        to_across = _cross(gradient, down[:, None]).sum(dim=2)
        rows, width = len(factor), down.shape[-1] + 1
        total = gradient.new_zeros(3, rows + 1, width)
        for column in range(2):
            side = slice(column, width - 1 + column)
            total[:, 1:, side] += to_down[:, column]
            total[:, :-1, side] -= to_down[:, column]
        for row in range(2):
            side = slice(row, rows + row)
            total[:, side, 1:] += to_across[:, row]
            total[:, side, :-1] -= to_across[:, row]
        return total.movedim(0, -1), None, None


def _edges(points: Float[Tensor, "3 m w"]) -> tuple[Float[Tensor, "3 2 n w-1"], Float[Tensor, "3 2 n w-1"]]:
    """Differences along both columns and along both rows of every patch."""
    down, across = points[:, 1:] - points[:, :-1], points[:, :, 1:] - points[:, :, :-1]
    return torch.stack([down[..., :-1], down[..., 1:]], dim=1), torch.stack([across[:, :-1], across[:, 1:]], dim=1)


def _cross(a: Float[Tensor, "3 *b"], b: Float[Tensor, "3 *b"]) -> Float[Tensor, "3 *b"]:
    """Cross product along the first dimension."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    product = torch.empty(shape, dtype=a.dtype, device=a.device)
    for out, (first, second) in zip(product, NEXT, strict=True):
        torch.mul(a[first], b[second], out=out)
        out.addcmul_(a[second], b[first], value=-1)
    return product


def _inverse_length(vector: Float[Tensor, "3 *b"]) -> Float[Tensor, "*b"]:
    """One over the length, 0 for vectors that are (nearly) zero."""
    length = dot(vector, vector).sqrt_()
    return torch.where(length > SHORTEST_NORMAL, length.reciprocal(), 0.0)
