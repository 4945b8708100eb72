"""What alignment minimizes: residuals of matches with errors along and across their rays; and the steps downhill.

A match's two points p (frame a) and q (frame b) are both uncertain, so its residual ``r = p - (R q + t)`` is weighed by
``S = A + R B R'`` (as in generalized ICP, Segal et al. 2009). Three things follow from the errors being in both points:

- The covariances A and B are taken at the match's *most likely* point x, not at the measured ones: a range measured too
  short would otherwise claim a small error, and a ray's measured direction tilts the large error along it. Both pull
  the agents together, by more than 1 m of 30 where ranges are off by 20 % and bearings by half a degree. One
  correction of x is enough; to iterate until it agrees with itself does not converge for outliers.
- The Jacobian is taken at ``x = R q + t + R B R' S^-1 r``: the gradient of the total least-squares cost, the same from
  either agent's side.
- S is a sum of an outer product per ray and a multiple of the identity, so no matrix is stored per match.

Layout: components before matches, ``(b, 3, n)``, so that long rows are contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import roma
import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_TURN, LARGEST_SHIFT_M = math.pi, 1e4
"""Larger steps are no steps toward a minimum, and not taken."""

FLOOR_M = 1e-3
"""Standard deviation added to every point, so that no covariance is singular."""


class Rays(NamedTuple):
    """One agent's points of all matches, in its frame.

    The covariance at a point v away from the ray's origin is ``(along - across) v v' / |v|^power`` plus ``across I``
    times ``|v|^(2 - power)``, where power is 0 for errors that grow with the range and 2 for those that do not.
    """

    points: Float[Tensor, "b 3 n"]
    origins: Float[Tensor, "b 3 n"]
    along: Float[Tensor, "b n"]
    across: Float[Tensor, "b n"]


class Matches(NamedTuple):
    """Matches in float64; what has no weight is at the origin."""

    a: Rays
    b: Rays
    weight: Float[Tensor, "b n"]

    def map(self, function: Callable[[Tensor], Tensor]) -> Matches:
        """The same function of each tensor."""
        return Matches(Rays(*map(function, self.a)), Rays(*map(function, self.b)), function(self.weight))


class Cost(NamedTuple):
    """What does not depend on matches. ``corrected``: covariances at the most likely points, not the measured."""

    tilt_sigma: float | None
    width: float
    proportional: bool
    corrected: bool = True

    def kernel(self, squared: Float[Tensor, "b n"], widening: float = 1.0) -> Float[Tensor, "b n"]:
        """Weight of a match whose error is ``sqrt(squared)`` standard deviations (Geman-McClure)."""
        return (1 + squared / (widening * self.width) ** 2).square().reciprocal()


class Residuals(NamedTuple):
    """Of all matches at a pose; vectors in a's axes."""

    precision: Float[Tensor, "b 3 3 n"]  # S^-1
    whitened: Float[Tensor, "b 3 n"]  # S^-1 r
    lever: Float[Tensor, "b 3 n"]  # most likely point minus t
    squared: Float[Tensor, "b n"]  # r' S^-1 r


def residuals_at(pose: Float[Tensor, "b 4 4"], matches: Matches, cost: Cost) -> Residuals:
    """Residuals, with covariances at the points that are most likely given the covariances at the measured points."""
    translation = pose[:, :3, 3:]
    first = _residuals(pose, matches, matches.a.points - translation, pose[:, :3, :3] @ matches.b.points, cost)
    return _residuals(pose, matches, first.lever, first.lever, cost) if cost.corrected else first


def _residuals(
    pose: Float[Tensor, "b 4 4"],
    matches: Matches,
    lever_a: Float[Tensor, "b 3 n"],
    lever_b: Float[Tensor, "b 3 n"],
    cost: Cost,
) -> Residuals:
    """Residuals, with the covariances of a's and b's points at points given minus t in a's axes."""
    rotation, translation = pose[:, :3, :3], pose[:, :3, 3:]
    turned = rotation @ matches.b.points
    scale_a, ray_a, level_a = _covariance(matches.a, lever_a + translation - matches.a.origins, cost)
    scale_b, ray_b, level_b = _covariance(matches.b, lever_b - rotation @ matches.b.origins, cost)
    precision = _inverse(scale_a, ray_a, scale_b, ray_b, level_a + level_b)
    residual = matches.a.points - turned - translation
    whitened = (precision * residual[:, None]).sum(dim=2)
    pulled = (scale_b * (ray_b * whitened).sum(dim=1))[:, None] * ray_b + level_b[:, None] * whitened
    return Residuals(precision, whitened, turned + pulled, (residual * whitened).sum(dim=1))


def _covariance(rays: Rays, ray: Float[Tensor, "b 3 n"], cost: Cost) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, ray and level of ``scale * ray ray' + level * I``."""
    squared = ray.square().sum(dim=1)
    if cost.proportional:
        return rays.along - rays.across, ray, rays.across * squared + FLOOR_M**2
    return (rays.along - rays.across) / (squared + FLOOR_M**2), ray, rays.across + FLOOR_M**2


def _inverse(scale_a: Tensor, a: Tensor, scale_b: Tensor, b: Tensor, level: Tensor) -> Float[Tensor, "b 3 3 n"]:
    """Of ``scale_a a a' + scale_b b b' + level I``, by cofactors."""
    matrix = scale_a[:, None, None] * a[:, :, None] * a[:, None] + scale_b[:, None, None] * b[:, :, None] * b[:, None]
    xx, yy, zz = (matrix[:, i, i] + level for i in range(3))
    xy, xz, yz = matrix[:, 0, 1], matrix[:, 0, 2], matrix[:, 1, 2]
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * c_xx + xy * c_xy + xz * c_xz
    cofactors = torch.stack([c_xx, c_xy, c_xz, c_xy, c_yy, c_yz, c_xz, c_yz, c_zz], dim=1)
    return (cofactors / determinant[:, None]).unflatten(1, (3, 3))


def gradient_at(
    pose: Float[Tensor, "b 4 4"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6"]:
    """Minus the gradient of half the cost with respect to the step ``(omega, rho)`` of :func:`moved`."""
    force = weight[:, None] * residuals.whitened
    turn = torch.einsum("ijk,bjk->bi", _levi_civita(pose), residuals.lever @ force.mT)
    if cost.tilt_sigma is not None:
        down = pose[:, :3, 1]
        level = torch.eye(3, dtype=pose.dtype, device=pose.device)[1].expand_as(down)
        turn = turn + torch.linalg.cross(down, level) / cost.tilt_sigma**2
    return torch.cat([turn, force.sum(dim=-1)], dim=-1)


def information_at(
    pose: Float[Tensor, "b 4 4"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6 6"]:
    """Sum of ``J' S^-1 J`` with ``J = [-[lever]x, I]``, from moments of levers and precisions."""
    precision = (weight[:, None, None] * residuals.precision).flatten(1, 2)
    lever, skew = residuals.lever, _levi_civita(pose)
    squares = (lever[:, :, None] * lever[:, None]).flatten(1, 2)
    second = (squares @ precision.mT).unflatten(2, (3, 3)).unflatten(1, (3, 3))
    first = (lever @ precision.mT).unflatten(2, (3, 3))
    turn = torch.einsum("ijk,lmn,bjmkn->bil", skew, skew, second)
    if cost.tilt_sigma is not None:
        down = pose[:, :3, 1]
        eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
        turn = turn + (eye - down[:, :, None] * down[:, None]) / cost.tilt_sigma**2
    mixed = torch.einsum("ijk,bjkl->bil", skew, first)
    shift = precision.sum(dim=-1).unflatten(1, (3, 3))
    return torch.cat([torch.cat([turn, mixed], dim=2), torch.cat([mixed.mT, shift], dim=2)], dim=1)


def _levi_civita(like: Tensor) -> Float[Tensor, "3 3 3"]:
    eye = torch.eye(3, dtype=like.dtype, device=like.device)
    return torch.linalg.cross(eye[:, None].expand(3, 3, 3), eye[None].expand(3, 3, 3)).movedim(2, 0)


def curvature_at(
    information: Float[Tensor, "b 6 6"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6 6"]:
    """Hessian of half the cost with the kernel's curvature, up to terms of the relative size of the errors.

    Where it is not positive enough (more than ten times Gauss-Newton's step), ``information`` itself.
    """
    lever, pull = residuals.lever, residuals.whitened
    force = torch.cat([torch.linalg.cross(lever, pull, dim=1), pull], dim=1)
    bend = 4 / cost.width**2 * weight * cost.kernel(residuals.squared).sqrt()  # -2 w u' of the kernel u(d^2)
    curvature = information - (force * bend[:, None]) @ force.mT
    convex = torch.linalg.cholesky_ex(curvature - 0.1 * information)[1] == 0
    return torch.where(convex[:, None, None], curvature, information)


def damped(information: Float[Tensor, "b 6 6"]) -> Float[Tensor, "b 6 6"]:
    """Never singular, and not noticeably another."""
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    return information + torch.diag_embed(1e-9 * diagonal + 1e-12 * diagonal.amax(dim=-1, keepdim=True) + 1e-30)


def moved(pose: Float[Tensor, "b 4 4"], step: Float[Tensor, "b 6"]) -> Float[Tensor, "b 4 4"]:
    """The pose after a step ``(omega, rho)`` in a's axes: ``Exp(omega) R`` and ``t + rho``."""
    rotation = roma.rotvec_to_rotmat(step[:, :3]) @ pose[:, :3, :3]
    top = torch.cat([rotation, (pose[:, :3, 3] + step[:, 3:])[..., None]], dim=-1)
    return torch.cat([top, pose[:, 3:]], dim=-2)


def descend(
    pose: Float[Tensor, "b 4 4"], matches: Matches, cost: Cost, widening: float = 1.0, newton: bool = False
) -> Float[Tensor, "b 4 4"]:
    """One reweighted Gauss-Newton step, or Newton step, with the kernel wider by ``widening``.

    Differentiable with the step's matrix held fixed: repeated from a minimum, the derivative becomes the minimum's.
    """
    residuals = residuals_at(pose, matches, cost)
    weight = matches.weight * cost.kernel(residuals.squared, widening)
    with torch.no_grad():
        matrix = damped(information_at(pose, residuals, weight, cost))
        if newton:
            matrix = curvature_at(matrix, residuals, weight, cost)
        sound = matrix.isfinite().flatten(1).all(dim=1)
        matrix = torch.where(sound[:, None, None], matrix, torch.eye(6, dtype=matrix.dtype, device=matrix.device))
    gradient = gradient_at(pose, residuals, weight, cost)
    step = torch.linalg.solve_ex(matrix, gradient[..., None])[0][..., 0]
    largest = (step[:, :3].abs().amax(dim=-1) / LARGEST_TURN).maximum(step[:, 3:].abs().amax(dim=-1) / LARGEST_SHIFT_M)
    # A matrix that is all but singular gives steps that are not finite, and then no gradient through them is.
    return moved(pose, torch.where(largest[:, None] < 1, step, 0.0))
