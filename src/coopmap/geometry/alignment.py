"""Relative pose of two agents from weighted matches between their points: robust, differentiable alignment on SE(3).

A start comes from a systematic search over poses that two or three matches suggest
(:mod:`coopmap.geometry.alignment_search`), without gradients. From there, Gauss-Newton minimizes

    sum_i w_i c^2 d_i^2 / (c^2 + d_i^2) / 2 + |R e_y - e_y|^2 / (2 tilt_sigma^2),   d_i^2 = r_i' S_i^-1 r_i,

with ``r_i = p_i - (R q_i + t)``, ``S_i = A_i + R B_i R'`` (points p with covariances A in frame a, q with B in frame b;
as in generalized ICP, Segal et al. 2009) and the kernel of Geman and McClure, whose width c narrows from step to step.
S depends on R; its derivative is accounted for by taking the Jacobian at the match's most likely point
``R q + t + R B R' S^-1 r`` in place of ``R q + t``, which also makes the result the same from either agent's side.

Gradients are those of the minimum (implicit function theorem): one Newton step with the exact, constant Hessian from
the minimum found.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import roma
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.alignment_search import best_candidates, top_matches

WIDTH = 4.0
"""Standard deviations at which a match counts a quarter: the kernel's width c, at last."""

MIN_MATCHES = 3
"""Matches of positive weight within the kernel's width that a pose needs."""

MAX_ROTATION_SIGMA, MAX_TRANSLATION_SIGMA_M = 0.5, 15.0
"""Root of the summed variances, radians and meters, above which the pose counts as not determined by its matches."""

FLOOR_M = 1e-3
"""Standard deviation added to every point, so that no covariance is singular."""

_WIDENING = (16.0, 8.0, 4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of WIDTH, per Gauss-Newton step
_CANDIDATE_WIDENING = (8.0, 4.0, 2.0)
_CANDIDATES = 4


class Alignment(NamedTuple):
    """Relative poses of pairs of agents; of a degenerate pair, the identity and zeros.

    Attributes:
        pose: ``T_a_b``, in the points' dtype.
        inlier: robust weight of each match in [0, 1]: 1 where it agrees, 1/4 at the kernel's width; 0 where the match
            had no weight.
        information: inverse covariance of the pose's errors ``(omega, rho)``, radians and meters, both in frame a's
            axes: ``R_true = Exp(omega) R``, ``t_true = t + rho``. Its inverse's last block is the covariance of the
            position of b in a. Scales with the weights; contains the tilt prior.
        degenerate: the matches do not determine the pose: fewer than :data:`MIN_MATCHES` agree, or its standard
            deviation (as if the largest weight were 1) is above :data:`MAX_ROTATION_SIGMA` or
            :data:`MAX_TRANSLATION_SIGMA_M`.
        score: share of the weight that agrees, ``sum(weight * inlier) / sum(weight)``, in [0, 1].
    """

    pose: Float[Tensor, "*b 4 4"]
    inlier: Float[Tensor, "*b n"]
    information: Float[Tensor, "*b 6 6"]
    degenerate: Bool[Tensor, " *b"]
    score: Float[Tensor, " *b"]


class _Matches(NamedTuple):
    """Matches in float64, cleaned: what has no weight is at the origin, with unit covariances."""

    points_a: Float[Tensor, "b n 3"]
    points_b: Float[Tensor, "b n 3"]
    weight: Float[Tensor, "b n"]
    covariance_a: Float[Tensor, "b n 3 3"]
    covariance_b: Float[Tensor, "b n 3 3"]


class _Residuals(NamedTuple):
    precision: Float[Tensor, "b n 3 3"]  # S^-1
    whitened: Float[Tensor, "b n 3"]  # S^-1 r
    lever: Float[Tensor, "b n 3"]  # most likely point minus t, in a's axes
    squared: Float[Tensor, "b n"]  # d^2


def align(
    points_a: Float[Tensor, "*b n 3"],
    points_b: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"],
    covariance_a: Float[Tensor, "*b n 3 3"] | None = None,
    covariance_b: Float[Tensor, "*b n 3 3"] | None = None,
    tilt_sigma: float | None = None,
    width: float = WIDTH,
    hypotheses: int = 256,
) -> Alignment:
    """Align the points of agent b with those of agent a that they match.

    Differentiable in points, weights and covariances: the pose as the minimum that it is, inliers, information and
    score at that pose held fixed. No random numbers, no host synchronization; float64 inside.

    Args:
        points_a: the matches' points in frame a (OpenCV axes, meters).
        points_b: the same matches' points in frame b.
        weight: confidence of each match, not negative. Matches with weight 0, or with a value that is not finite, have
            no influence. Only relative size matters for the pose without a prior.
        covariance_a: of the errors of ``points_a``, square meters (see :func:`ray_covariance`); by default
            :func:`isotropic_covariance`.
        covariance_b: the same for ``points_b``, in frame b.
        tilt_sigma: standard deviation in radians of the angle between both agents' vertical axes, per axis; None: no
            prior. With it, the search considers level agents only (two matches suggest a pose instead of three).
        width: of the robust kernel, in standard deviations; ``math.inf``: least squares.
        hypotheses: poses that the search tries, per pair.
    """
    batch, number, dtype = points_a.shape[:-2], points_a.shape[-2], points_a.dtype
    matches = _prepare(points_a, points_b, weight, covariance_a, covariance_b)
    with torch.no_grad():
        fixed = _Matches(*(value.detach() for value in matches))
        minimum = _minimize(_start(fixed, tilt_sigma, width, hypotheses), fixed, tilt_sigma, width, _WIDENING)
        degenerate = _is_degenerate(minimum, fixed, tilt_sigma, width)
        eye = torch.eye(4, dtype=minimum.dtype, device=minimum.device)
        minimum = torch.where(degenerate[:, None, None], eye, minimum)
        hessian = _hessian(minimum, fixed, tilt_sigma, width, degenerate)

    matches = matches._replace(weight=torch.where(degenerate[:, None], 0.0, matches.weight))
    residuals = _residuals(minimum, matches)
    inlier = _kernel(residuals.squared, width) * (matches.weight > 0)
    gradient = _gradient(minimum, residuals, matches.weight * inlier, tilt_sigma)
    gradient = torch.where(degenerate[:, None], 0.0, gradient)
    pose = _moved(minimum, torch.linalg.solve_ex(hessian, gradient[..., None])[0][..., 0])
    agreeing = matches.weight * inlier
    information = _information(minimum, residuals, efficiency(width) * agreeing, tilt_sigma)
    information = torch.where(degenerate[:, None, None], 0.0, information)
    score = agreeing.sum(dim=-1) / matches.weight.sum(dim=-1).clamp(min=torch.finfo(dtype).tiny)
    return Alignment(
        pose.to(dtype).unflatten(0, batch) if batch else pose[0].to(dtype),
        inlier[:, :number].to(dtype).reshape(*batch, number),
        information.to(dtype).reshape(*batch, 6, 6),
        degenerate.reshape(batch),
        score.to(dtype).reshape(batch),
    )


def ray_covariance(
    points: Float[Tensor, "*b n 3"], range_sigma: float | Tensor, bearing_sigma: float | Tensor
) -> Float[Tensor, "*b n 3 3"]:
    """Covariance of points that are a ray times a range.

    Args:
        points: in the frame of the agent that sees them, meters.
        range_sigma: standard deviation of the range relative to the range, or of its logarithm; ``(*b n)`` or a number.
        bearing_sigma: standard deviation of the direction, radians, about each axis across the ray; likewise.
    """
    outer = points[..., :, None] * points[..., None, :]
    squared = points.square().sum(dim=-1)[..., None, None]
    along = torch.as_tensor(range_sigma, dtype=points.dtype, device=points.device)[..., None, None].square()
    across = torch.as_tensor(bearing_sigma, dtype=points.dtype, device=points.device)[..., None, None].square()
    return along * outer + across * (squared * torch.eye(3, dtype=points.dtype, device=points.device) - outer)


def isotropic_covariance(points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3 3"]:
    """Errors of 5 % of the range and 0.4 m in each direction: where nothing better is known."""
    # The floor keeps the norm of a point at the origin differentiable.
    distance = (points.square().sum(dim=-1) + FLOOR_M**2).sqrt()
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    return (0.05 * distance + 0.4).square()[..., None, None] * eye


@functools.cache
def efficiency(width: float) -> float:
    """Factor from reweighted least squares' information to that of the robust estimate, for normal errors.

    With ``psi(z) = u(|z|^2) z`` of a whitened residual z of three dimensions, the estimate's information is
    ``E[psi']^2 / E[psi psi'] `` of what the matches contain (Huber 1981), while the weights sum up to ``E[u]`` of it.
    """
    x = np.linspace(0, 12, 4001)
    density = x**2 * np.exp(-(x**2) / 2)
    density /= density.sum()
    ratio = (x / width) ** 2
    kernel = (1 + ratio) ** -2.0
    slope = (density * (kernel - 4 / 3 * ratio * (1 + ratio) ** -3.0)).sum()
    power = (density * kernel**2 * x**2).sum() / 3
    return float(slope**2 / power / (density * kernel).sum())


def _prepare(
    points_a: Tensor, points_b: Tensor, weight: Tensor, covariance_a: Tensor | None, covariance_b: Tensor | None
) -> _Matches:
    """Flatten the batch, go to float64, and clean what has no weight."""
    if covariance_a is None:
        covariance_a = isotropic_covariance(points_a)
    if covariance_b is None:
        covariance_b = isotropic_covariance(points_b)
    usable = (weight > 0) & weight.isfinite()
    for value in (points_a, points_b, covariance_a.flatten(-2), covariance_b.flatten(-2)):
        usable = usable & value.isfinite().all(dim=-1)
    number = weight.shape[-1]

    def clean(value: Tensor, instead: Tensor | float) -> Tensor:
        mask = usable.reshape(*usable.shape, *[1] * (value.dim() - usable.dim()))
        value = torch.where(mask, value.double(), instead)
        return value.reshape(-1, *value.shape[weight.dim() - 1 :])

    eye = torch.eye(3, dtype=torch.float64, device=weight.device)
    flat = _Matches(
        clean(points_a, 0.0),
        clean(points_b, 0.0),
        clean(weight, 0.0),
        clean(covariance_a, eye) + FLOOR_M**2 * eye,
        clean(covariance_b, eye) + FLOOR_M**2 * eye,
    )
    missing = max(0, MIN_MATCHES - number)
    if missing == 0:
        return flat
    points_a, points_b, weight, covariance_a, covariance_b = flat
    pad = eye.expand(len(weight), missing, 3, 3)
    return _Matches(
        F.pad(points_a, (0, 0, 0, missing)),
        F.pad(points_b, (0, 0, 0, missing)),
        F.pad(weight, (0, missing)),
        torch.cat([covariance_a, pad], dim=1),
        torch.cat([covariance_b, pad], dim=1),
    )


def _start(matches: _Matches, tilt_sigma: float | None, width: float, hypotheses: int) -> Float[Tensor, "b 4 4"]:
    """The best of a few candidates after some steps on the weightiest matches."""
    top = _Matches(*top_matches(matches.weight, matches))
    spread = top.covariance_a.diagonal(dim1=-2, dim2=-1).sum(-1) + top.covariance_b.diagonal(dim1=-2, dim2=-1).sum(-1)
    candidates = best_candidates(
        top.points_a, top.points_b, top.weight, spread, tilt_sigma is not None, hypotheses, _CANDIDATES
    )
    repeated = _Matches(*(value.repeat_interleave(_CANDIDATES, dim=0) for value in top))
    width = min(width, WIDTH)
    poses = _minimize(candidates.flatten(0, 1), repeated, tilt_sigma, width, _CANDIDATE_WIDENING)
    squared = _residuals(poses, repeated).squared / (2 * width) ** 2
    score = (repeated.weight / (1 + squared)).sum(dim=-1).unflatten(0, (-1, _CANDIDATES))
    best = score.nan_to_num(nan=-1.0).argmax(dim=-1)
    return poses.unflatten(0, (-1, _CANDIDATES))[torch.arange(len(best), device=best.device), best]


def _minimize(
    pose: Float[Tensor, "b 4 4"],
    matches: _Matches,
    tilt_sigma: float | None,
    width: float,
    widening: tuple[float, ...],
) -> Float[Tensor, "b 4 4"]:
    """Iteratively reweighted Gauss-Newton steps with a kernel of ``width`` times each of ``widening``."""
    for factor in widening:
        residuals = _residuals(pose, matches)
        weight = matches.weight * _kernel(residuals.squared, factor * width)
        information = _information(pose, residuals, weight, tilt_sigma)
        gradient = _gradient(pose, residuals, weight, tilt_sigma)
        step = torch.linalg.solve_ex(_damped(information), gradient[..., None])[0][..., 0]
        pose = _moved(pose, step)
    return pose


def _damped(information: Float[Tensor, "b 6 6"]) -> Float[Tensor, "b 6 6"]:
    """Never singular, and not noticeably another."""
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    return information + torch.diag_embed(1e-9 * diagonal + 1e-12 * diagonal.amax(dim=-1, keepdim=True) + 1e-30)


def _residuals(pose: Float[Tensor, "b 4 4"], matches: _Matches) -> _Residuals:
    rotation, translation = pose[:, :3, :3], pose[:, None, :3, 3]
    turned = matches.points_b @ rotation.mT
    twice = (rotation[:, :, None, :, None] * rotation[:, None, :, None, :]).reshape(-1, 9, 9)  # Kronecker product
    covariance_b = (matches.covariance_b.flatten(-2) @ twice.mT).unflatten(-1, (3, 3))
    precision = _inverse(matches.covariance_a + covariance_b)
    residual = matches.points_a - turned - translation
    whitened = _times(precision, residual)
    lever = turned + _times(covariance_b, whitened)
    return _Residuals(precision, whitened, lever, (residual * whitened).sum(dim=-1))


def _times(matrix: Float[Tensor, "b n 3 3"], vector: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    return (matrix * vector[..., None, :]).sum(dim=-1)


def _inverse(matrix: Float[Tensor, "b n 3 3"]) -> Float[Tensor, "b n 3 3"]:
    """Of symmetric matrices, by cofactors: ten times as fast as LAPACK's for thousands of them."""
    x, y, z = matrix.unbind(dim=-1)
    yz = torch.linalg.cross(y, z)
    cofactors = torch.stack([yz, torch.linalg.cross(z, x), torch.linalg.cross(x, y)], dim=-1)
    return cofactors / (x * yz).sum(dim=-1)[..., None, None]


def _kernel(squared: Float[Tensor, "b n"], width: float) -> Float[Tensor, "b n"]:
    """Weight of a match whose error is ``sqrt(squared)`` standard deviations (Geman-McClure)."""
    return (1 + squared / width**2).square().reciprocal()


def _gradient(
    pose: Float[Tensor, "b 4 4"], residuals: _Residuals, weight: Float[Tensor, "b n"], tilt_sigma: float | None
) -> Float[Tensor, "b 6"]:
    """Minus the gradient of half the cost with respect to ``(omega, rho)`` (see :class:`Alignment`)."""
    force = weight[..., None] * residuals.whitened
    turn = torch.linalg.cross(residuals.lever, force).sum(dim=-2)
    if tilt_sigma is not None:
        down = pose[:, :3, 1]
        turn = turn + torch.linalg.cross(down, _axis_y(down)) / tilt_sigma**2
    return torch.cat([turn, force.sum(dim=-2)], dim=-1)


def _axis_y(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)[1].expand_as(like)


def _information(
    pose: Float[Tensor, "b 4 4"], residuals: _Residuals, weight: Float[Tensor, "b n"], tilt_sigma: float | None
) -> Float[Tensor, "b 6 6"]:
    """Sum of ``J' S^-1 J`` with ``J = [-[lever]x, I]``, by cross products."""
    precision = weight[..., None, None] * residuals.precision
    mixed = torch.linalg.cross(residuals.lever[..., None, :].expand_as(precision), precision, dim=-1)
    turn = torch.linalg.cross(residuals.lever[..., :, None].expand_as(mixed), mixed, dim=-2).sum(dim=-3)
    if tilt_sigma is not None:
        down = pose[:, :3, 1]
        eye = torch.eye(3, dtype=down.dtype, device=down.device)
        turn = turn + (eye - down[:, :, None] * down[:, None, :]) / tilt_sigma**2
    mixed = mixed.sum(dim=-3)
    return torch.cat(
        [torch.cat([turn, mixed.mT], dim=-1), torch.cat([mixed, precision.sum(dim=-3)], dim=-1)],
        dim=-2,
    )


def _moved(pose: Float[Tensor, "b 4 4"], step: Float[Tensor, "b 6"]) -> Float[Tensor, "b 4 4"]:
    rotation = roma.rotvec_to_rotmat(step[:, :3]) @ pose[:, :3, :3]
    top = torch.cat([rotation, (pose[:, :3, 3] + step[:, 3:])[..., None]], dim=-1)
    return torch.cat([top, pose[:, 3:]], dim=-2)


def _is_degenerate(
    pose: Float[Tensor, "b 4 4"], matches: _Matches, tilt_sigma: float | None, width: float
) -> Bool[Tensor, " b"]:
    residuals = _residuals(pose, matches)
    kernel = _kernel(residuals.squared, width)
    agreeing = ((matches.weight > 0) & (kernel >= 0.25)).sum(dim=-1)
    relative = matches.weight * kernel / matches.weight.amax(dim=-1, keepdim=True).clamp(min=1e-300)
    information = _damped(_information(pose, residuals, relative, tilt_sigma))
    information = information + 1e-12 * torch.eye(6, dtype=pose.dtype, device=pose.device)
    factor, failed = torch.linalg.cholesky_ex(information)
    variance = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)
    rotation, translation = variance[:, :3].sum(dim=-1).sqrt(), variance[:, 3:].sum(dim=-1).sqrt()
    determined = (rotation < MAX_ROTATION_SIGMA) & (translation < MAX_TRANSLATION_SIGMA_M) & (failed == 0)
    return ~(determined & (agreeing >= MIN_MATCHES) & pose.isfinite().flatten(-2).all(dim=-1))


def _hessian(
    pose: Float[Tensor, "b 4 4"],
    matches: _Matches,
    tilt_sigma: float | None,
    width: float,
    degenerate: Bool[Tensor, " b"],
) -> Float[Tensor, "b 6 6"]:
    """Exact Hessian of half the cost; Gauss-Newton's where it is not positive definite enough; else the identity."""

    def gradient(step: Tensor) -> Tensor:
        omega = roma.rotvec_to_rotmat(torch.zeros_like(step[:, :3])) + _skew(step[:, :3])
        rotation = omega @ pose[:, :3, :3]
        top = torch.cat([rotation, (pose[:, :3, 3] + step[:, 3:])[..., None]], dim=-1)
        near = torch.cat([top, pose[:, 3:]], dim=-2)
        residuals = _residuals(near, matches)
        return _gradient(near, residuals, matches.weight * _kernel(residuals.squared, width), tilt_sigma)

    zero = pose.new_zeros(len(pose), 6)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(gradient, (zero,), (direction.expand_as(zero),))[1]

    eye = torch.eye(6, dtype=pose.dtype, device=pose.device)
    exact = -torch.func.vmap(column, out_dims=-1)(eye)
    exact = (exact + exact.mT) / 2
    residuals = _residuals(pose, matches)
    approximate = _damped(_information(pose, residuals, matches.weight * _kernel(residuals.squared, width), tilt_sigma))
    convex = torch.linalg.cholesky_ex(exact - 0.1 * approximate)[1] == 0
    hessian = torch.where(convex[:, None, None], exact, approximate)
    return torch.where(degenerate[:, None, None], eye, hessian)


def _skew(vector: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
