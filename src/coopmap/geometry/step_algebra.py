"""Algebra of steps of poses: constants that are made once per device, and small rotations."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_TURN, LARGEST_SHIFT_M = math.pi, 1e4
"""Larger steps are no steps toward a minimum, and not taken."""


class Constants(NamedTuple):
    """What steps ``(omega, rho)`` of a pose multiply with.

    With ``J = [-[x]x, I]``, ``J'`` is linear in ``h = (1, x)``: a sum of constant matrices 6 x 3 times ``h_k``. So what
    is quadratic in J is a product of moments of h with a constant matrix, in one operation.

    Attributes:
        cross: from omega to the matrix ``[omega]x``, by rows.
        jacobian: from ``h f'``, by rows, to ``J' f``.
        squared_jacobian: from ``h_k h_l P_mn``, numbered in this order, to ``J' P J``, by rows.
        squared_tilt: from ``x x'``, by rows, to ``[x]x [x]x'`` in the block of omega, zero elsewhere.
        largest_step: :data:`LARGEST_TURN` and :data:`LARGEST_SHIFT_M`, three times each.
        turn: from a rotation by an angle, by rows, to its axis times the angle's sine, and half its trace.
    """

    cross: Float[Tensor, "3 9"]
    jacobian: Float[Tensor, "12 6"]
    squared_jacobian: Float[Tensor, "144 36"]
    squared_tilt: Float[Tensor, "9 36"]
    largest_step: Float[Tensor, "6"]
    turn: Float[Tensor, "9 4"]


def constants_of(like: Tensor) -> Constants:
    """Constants of the same type and on the same device."""
    return (_constants if type(like) is Tensor else _constants.__wrapped__)(like.dtype, like.device)


def identity(size: int, like: Tensor) -> Float[Tensor, "n n"]:
    """Identity matrix of the same type and on the same device."""
    return (_identity if type(like) is Tensor else _identity.__wrapped__)(size, like.dtype, like.device)


def ends_of_edges(passes: int, nodes: int, like: Tensor) -> Float[Tensor, "e n"]:
    """Of each edge from i to j (all pairs, by rows, once per pass): -1 at i and 1 at j, zero if they are one."""
    return (_ends if type(like) is Tensor else _ends.__wrapped__)(passes, nodes, like.dtype, like.device)


def cayley(omega: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Rotation by ``2 atan(|omega| / 2)`` about omega: that of the quaternion ``(omega / 2, 1)``."""
    cross = (omega @ constants_of(omega).cross).unflatten(1, (3, 3))
    length = 1 + omega.square().sum(dim=1)[:, None, None] / 4
    return identity(3, omega).addcdiv(cross.baddbmm(cross, cross, alpha=0.5), length)


def unless_too_large(steps: Float[Tensor, "b k 6"]) -> Float[Tensor, "b k 6"]:
    """Steps, all of them 0 where one of the k is larger than steps toward a minimum are, or not finite."""
    share = steps.detach() / constants_of(steps).largest_step
    return torch.where(torch.linalg.vector_norm(share, ord=math.inf, dim=(1, 2), keepdim=True) < 1, steps, 0.0)


# Kept, since a GPU takes longer to make them than to use them. Not for tensors without content (FakeTensor), and
# outside of inference mode: what is made there cannot take part in gradients later.
@functools.cache
@torch.inference_mode(False)
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n"]:
    return torch.eye(size, dtype=dtype, device=device)


@functools.cache
@torch.inference_mode(False)
def _ends(passes: int, nodes: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "e n"]:
    one = torch.eye(nodes, dtype=dtype, device=device)
    return (one[None] - one[:, None]).flatten(0, 1).repeat(passes, 1)


@functools.cache
@torch.inference_mode(False)
def _constants(dtype: torch.dtype, device: torch.device) -> Constants:
    eye = torch.eye(3, dtype=dtype, device=device)
    zero = torch.zeros_like(eye)
    cross = torch.linalg.cross(eye[:, None], eye[None]).mT  # of the axes, as matrices
    transposed = torch.stack([torch.cat([zero, eye]), *(torch.cat([matrix, zero]) for matrix in cross)])  # 4 6 3
    squared = torch.einsum("kim,ljn->klmnij", transposed, transposed)
    squared_tilt = squared[1:, 1:].diagonal(dim1=2, dim2=3).sum(dim=-1)
    return Constants(
        cross=cross.flatten(1),
        jacobian=transposed.mT.flatten(0, 1),
        squared_jacobian=squared.flatten(4, 5).flatten(0, 3),
        squared_tilt=squared_tilt.flatten(2, 3).flatten(0, 1),
        largest_step=torch.cat([eye.new_full((3,), LARGEST_TURN), eye.new_full((3,), LARGEST_SHIFT_M)]),
        turn=torch.cat([cross.flatten(1), eye.flatten()[None]]).mT / 2,
    )
