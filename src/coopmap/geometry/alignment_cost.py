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

Layout: components before matches, ``(b, 3, n)``, so that long rows are contiguous. A GPU's time goes
into starting so many small operations: hence both agents' rays in one tensor, and products with constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import roma
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.se3 import with_bottom_row
from coopmap.geometry.step_algebra import cayley, constants_of, identity, unless_too_large

FLOOR_M = 1e-3
"""Standard deviation added to every point, so that no covariance is singular."""


class Matches(NamedTuple):
    """Matches in float64; what has no weight is at the origin. Second of the dimensions: agents a and b.

    The covariance of a point on a ray v is ``scale v v' / |v|^power`` plus ``across I`` times ``|v|^(2 - power)``,
    where power is 0 for errors that grow with the range and 2 for those that do not.

    Attributes:
        points: in the frames of their agents.
        rays: from a's points back to their rays' origins, and from the rays' origins of b to its points, in the same
            frames: parts of one way, that the errors of either agent change alike.
        scale: variance along the rays minus that across.
        across: variance across.
        weight: of the matches.
    """

    points: Float[Tensor, "b 2 3 n"]
    rays: Float[Tensor, "b 2 3 n"]
    scale: Float[Tensor, "b 2 n"]
    across: Float[Tensor, "b 2 n"]
    weight: Float[Tensor, "b n"]

    def leveled(self, level: Float[Tensor, "b 2 4 4"]) -> Matches:
        """The same in turned frames of both agents (:func:`leveling`)."""
        rotation = level[..., :3, :3]
        return self._replace(points=rotation @ self.points, rays=rotation @ self.rays)

    def map(self, function: Callable[[Tensor], Tensor]) -> Matches:
        """The same function of each tensor."""
        return Matches(*map(function, self))


class Cost(NamedTuple):
    """What does not depend on matches. ``corrected``: covariances at the most likely points, not the measured."""

    tilt_sigma: float | None
    width: float
    proportional: bool
    corrected: bool = True

    def kernel(self, squared: Float[Tensor, "b n"], widening: float = 1.0) -> Float[Tensor, "b n"]:
        """Weight of a match whose error is ``sqrt(squared)`` standard deviations (Geman-McClure)."""
        return (squared / (widening * self.width) ** 2 + 1).pow(-2)


class Residuals(NamedTuple):
    """Of all matches at a pose; vectors in a's axes."""

    precision: Float[Tensor, "b 3 3 n"]  # S^-1
    whitened: Float[Tensor, "b 3 n"]  # S^-1 r
    lever: Float[Tensor, "b 4 n"]  # 1 and, below it, most likely point minus t
    squared: Float[Tensor, "b n"]  # r' S^-1 r


def leveling(down: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """The turn of an agent's frame, double precision, that makes ``down`` its y axis and keeps its heading.

    Args:
        down: of any length but 0, and not along the z axis.
    """
    down = down.double()
    ahead = identity(3, down)[2].expand_as(down)
    axes = roma.special_gramschmidt(torch.stack([down, ahead], dim=-1)).mT  # y, z, x
    return with_bottom_row(F.pad(axes.roll(1, dims=-2), (0, 1)))


def residuals_at(pose: Float[Tensor, "b 4 4"], matches: Matches, cost: Cost) -> Residuals:
    """Residuals, with covariances at the points that are most likely given the covariances at the measured points."""
    rotation, translation = pose[:, :3].split([3, 1], dim=2)
    (point_a, point_b), (ray_a, ray_b) = matches.points.unbind(dim=1), matches.rays.unbind(dim=1)
    turned = rotation @ point_b
    residual = point_a - turned - translation
    rays = torch.stack([ray_a, rotation @ ray_b], dim=1)
    precision, whitened, errors = _whitened(residual, rays, matches, cost)
    if cost.corrected:
        precision, whitened, errors = _whitened(residual, rays + errors, matches, cost)
    lever = F.pad(turned + errors[:, 1], (0, 0, 1, 0), value=1.0)
    return Residuals(precision, whitened, lever, (residual * whitened).sum(dim=1))


def _whitened(
    residual: Float[Tensor, "b 3 n"], rays: Float[Tensor, "b 2 3 n"], matches: Matches, cost: Cost
) -> tuple[Float[Tensor, "b 3 3 n"], Float[Tensor, "b 3 n"], Float[Tensor, "b 2 3 n"]]:
    """``S^-1``, ``S^-1 r`` and the most likely errors ``A S^-1 r`` and ``R B R' S^-1 r``, with covariances on rays."""
    squared = rays.square().sum(dim=2)
    if cost.proportional:
        scale, level = matches.scale, matches.across * squared + FLOOR_M**2
    else:
        scale, level = matches.scale / (squared + FLOOR_M**2), matches.across + FLOOR_M**2
    scaled = scale[:, :, None] * rays
    precision = _inverse((scaled[:, :, :, None] * rays[:, :, None]).sum(dim=1), level.sum(dim=1))
    whitened = (precision * residual[:, None]).sum(dim=2)
    errors = torch.addcmul(
        scaled * (rays * whitened[:, None]).sum(dim=2, keepdim=True), level[:, :, None], whitened[:, None]
    )
    return precision, whitened, errors


def _inverse(matrix: Float[Tensor, "b 3 3 n"], level: Float[Tensor, "b n"]) -> Float[Tensor, "b 3 3 n"]:
    """Of symmetric ``matrix + level I``: its cofactors are the cross products of its rows."""
    matrix = torch.addcmul(matrix, level[:, None, None], identity(3, level)[..., None])
    cofactors = torch.linalg.cross(matrix.roll(-1, dims=1), matrix.roll(-2, dims=1), dim=2)
    determinant = (matrix[:, 0] * cofactors[:, 0]).sum(dim=1)
    return cofactors / determinant[:, None, None]


def gradient_at(
    pose: Float[Tensor, "b 4 4"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6"]:
    """Minus the gradient of half the cost with respect to the step ``(omega, rho)`` of :func:`moved`."""
    constants = constants_of(pose)
    moments = residuals.lever @ (weight[:, None] * residuals.whitened).mT
    gradient = moments.flatten(1) @ constants.jacobian
    if cost.tilt_sigma is not None:  # R e_y x e_y
        gradient = gradient.addmm(pose[:, :3, 1], constants.jacobian[4::3], alpha=cost.tilt_sigma**-2)
    return gradient


def information_at(
    pose: Float[Tensor, "b 4 4"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6 6"]:
    """Sum of ``J' S^-1 J`` with ``J = [-[lever]x, I]``, from moments of levers and precisions."""
    constants, lever = constants_of(pose), residuals.lever
    precision = (weight[:, None, None] * residuals.precision).flatten(1, 2)
    moments = (lever[:, :, None] * lever[:, None]).flatten(1, 2) @ precision.mT
    information = moments.flatten(1) @ constants.squared_jacobian
    if cost.tilt_sigma is not None:
        down = pose[:, :3, 1]
        squares = (down[:, :, None] * down[:, None]).flatten(1)
        information = information.addmm(squares, constants.squared_tilt, alpha=cost.tilt_sigma**-2)
    return information.unflatten(1, (6, 6))


def curvature_at(
    information: Float[Tensor, "b 6 6"], residuals: Residuals, weight: Float[Tensor, "b n"], cost: Cost
) -> Float[Tensor, "b 6 6"]:
    """Hessian of half the cost with the kernel's curvature, up to terms of the relative size of the errors.

    Where it is not positive enough (more than ten times Gauss-Newton's step), ``information`` itself.
    """
    lever, pull = residuals.lever[:, 1:], residuals.whitened
    force = torch.cat([torch.linalg.cross(lever, pull, dim=1), pull], dim=1)
    bend = weight / (residuals.squared + cost.width**2)  # a quarter of -2 w u' of the kernel u(d^2)
    curvature = information.baddbmm(force * bend[:, None], force.mT, alpha=-4)
    convex = torch.linalg.cholesky_ex(curvature.sub(information, alpha=0.1))[1] == 0
    return torch.where(convex[:, None, None], curvature, information)


def damped(information: Float[Tensor, "b k k"]) -> Float[Tensor, "b k k"]:
    """Never singular, and not noticeably another."""
    one = identity(information.shape[-1], information)
    largest = information.diagonal(dim1=-2, dim2=-1).amax(dim=-1)[:, None, None]
    return information.addcmul(information, one, value=1e-9).addcmul(largest, one, value=1e-12).add(one, alpha=1e-30)


def moved(pose: Float[Tensor, "b 4 4"], step: Float[Tensor, "b 6"]) -> Float[Tensor, "b 4 4"]:
    """The pose after a step ``(omega, rho)`` in a's axes, ``C(omega) R`` and ``t + rho``.

    In place of ``Exp(omega)``, Cayley's rotation, which has the same derivatives of first and second order at 0 and
    needs a quarter of the operations. Steps lead to 0, so that neither where they end nor its derivative differ.
    """
    (omega, rho), (rotation, translation) = step.split(3, dim=1), pose[:, :3].split([3, 1], dim=2)
    turn = cayley(omega) @ rotation
    return torch.cat([torch.cat([turn, translation + rho[..., None]], dim=2), pose[:, 3:]], dim=1)


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
        sound = torch.linalg.vector_norm(matrix, ord=math.inf, dim=(1, 2), keepdim=True) < math.inf
        matrix = torch.where(sound, matrix, identity(6, matrix))
    gradient = gradient_at(pose, residuals, weight, cost)
    step = torch.linalg.solve_ex(matrix, gradient[..., None])[0].mT
    # A matrix that is all but singular gives steps that are not finite, and then no gradient through them is.
    return moved(pose, unless_too_large(step)[:, 0])
