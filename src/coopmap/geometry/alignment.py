"""Relative pose of two agents from weighted matches between their points: robust, differentiable alignment on SE(3).

A start comes from a systematic search over poses that two or three matches suggest
(:mod:`coopmap.geometry.alignment_search`), without gradients. From there, Gauss-Newton goes downhill in

    sum_i w_i c^2 d_i^2 / (c^2 + d_i^2) + |R e_y - e_y|^2 / tilt_sigma^2

where ``d_i`` is the error of match i in standard deviations (:mod:`coopmap.geometry.alignment_cost`) in the kernel of
Geman and McClure, whose width c narrows from step to step. In the gradient, covariances are held at the matches' most
likely points. Those of rays depend on the pose, so that the answer solves this estimating equation: it is near the
minimum of the sum, not exactly there. The last Newton steps, repeated at the answer, carry gradients: they converge to
its derivatives (implicit function theorem).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import roma
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.alignment_cost import (
    FLOOR_M,
    Cost,
    Matches,
    damped,
    descend,
    information_at,
    leveling,
    residuals_at,
)
from coopmap.geometry.alignment_search import best_candidates, top_matches
from coopmap.geometry.se3 import invert
from coopmap.geometry.step_algebra import identity

WIDTH = 3.0
"""Standard deviations at which a match counts a quarter: the kernel's width c, at last."""

MIN_MATCHES = 3
"""Matches of positive weight within the kernel's width that a pose needs."""

MAX_ROTATION_SIGMA, MAX_TRANSLATION_SIGMA_M = 0.5, 15.0
"""Root of the summed variances, radians and meters, above which the pose counts as not determined by its matches."""

# Of the kernel, per Gauss-Newton step. Wider ones find the way from farther off among few outliers, but lose it among
# many: last steps of 8, 4, 2, ... leave the best start for 4 of 10 pairs with 80 % outliers, these for none.
_CANDIDATE_WIDENING = (4.0, 2.0, 1.5)
_WIDENING = (1.5, 1.0, 1.0, 1.0, 1.0)
_CANDIDATES = 4
_NEWTON_STEPS = 3  # without, then with gradients


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


def align(
    points_a: Float[Tensor, "*b n 3"],
    points_b: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"],
    covariance_a: Float[Tensor, "*b n 3 3"] | None = None,
    covariance_b: Float[Tensor, "*b n 3 3"] | None = None,
    tilt_sigma: float | None = None,
    origin_a: Float[Tensor, "*b n 3"] | None = None,
    origin_b: Float[Tensor, "*b n 3"] | None = None,
    down_a: Float[Tensor, "*b 3"] | None = None,
    down_b: Float[Tensor, "*b 3"] | None = None,
    *,
    proportional: bool = True,
    width: float = WIDTH,
    hypotheses: int = 512,
) -> Alignment:
    """Align the points of agent b with those of agent a that they match.

    Differentiable in points, weights and covariances, as the minimum that it is. No random numbers, no host
    synchronization; float64 inside.

    Args:
        points_a: the matches' points in frame a (OpenCV axes, meters).
        points_b: the same matches' points in frame b.
        weight: confidence of each match, not negative. Matches with weight 0, or with a value that is not finite, have
            no influence. Only relative size matters for the pose without a prior.
        covariance_a: of the errors of ``points_a``, square meters (see :func:`ray_covariance`); by default
            :func:`isotropic_covariance`. What counts is its part along the ray and the mean across it.
        covariance_b: the same for ``points_b``, in frame b.
        tilt_sigma: standard deviation in radians of the angle between both agents' vertical axes, per axis; None: no
            prior. With it, the search considers level agents only (two matches suggest a pose instead of three).
        origin_a: where each point's ray starts, in frame a (a camera's center); by default the agent's center.
        origin_b: the same in frame b.
        down_a: vertical axis of agent a in its own frame, as an accelerometer knows it: what ``tilt_sigma`` is about;
            by default y. Given of both agents or of none.
        down_b: the same in frame b.
        proportional: errors grow with the range. Then each covariance is taken at the match's most likely point rather
            than at the measured one, which removes a bias (see :mod:`coopmap.geometry.alignment_cost`). Else their size
            stays as given.
        width: of the robust kernel, in standard deviations; ``math.inf``: least squares.
        hypotheses: poses that the search tries, per pair.
    """
    matches = ray_matches(points_a, points_b, weight, covariance_a, covariance_b, origin_a, origin_b, proportional)
    missing = max(0, MIN_MATCHES - points_a.shape[-2])
    matches = matches.map(lambda value: F.pad(value, (0, missing)))
    level = None
    if down_a is not None and down_b is not None:
        level = leveling(torch.stack([down_a, down_b], dim=-2)).reshape(-1, 2, 4, 4)
        matches = matches.leveled(level)
    cost = Cost(tilt_sigma, width, proportional)
    pose, degenerate = _minimum(matches.map(torch.detach), cost, hypotheses)
    matches = matches._replace(weight=torch.where(degenerate[:, None], 0.0, matches.weight))
    for _ in range(_NEWTON_STEPS):
        pose = descend(pose, matches, cost, newton=True)
    aligned = _appraised(pose, matches, cost, degenerate)
    aligned = aligned._replace(inlier=aligned.inlier[:, : points_a.shape[-2]])
    aligned = aligned if level is None else _unleveled(aligned, level)
    batch, dtype = points_a.shape[:-2], points_a.dtype
    return Alignment(
        *(
            (value if value.dtype == torch.bool else value.to(dtype)).reshape(batch + value.shape[1:])
            for value in aligned
        )
    )


def ray_matches(
    points_a: Float[Tensor, "*b n 3"],
    points_b: Float[Tensor, "*b n 3"],
    weight: Float[Tensor, "*b n"],
    covariance_a: Float[Tensor, "*b n 3 3"] | None = None,
    covariance_b: Float[Tensor, "*b n 3 3"] | None = None,
    origin_a: Float[Tensor, "*b n 3"] | None = None,
    origin_b: Float[Tensor, "*b n 3"] | None = None,
    proportional: bool = True,
) -> Matches:
    """What alignment computes with, pairs in one row; see :func:`align` for what it is made of."""
    batch = points_a.shape[:-2]

    def flat(value: Tensor) -> Tensor:
        return value.reshape(math.prod(batch), *value.shape[len(batch) :]).movedim(1, -1)

    def both(a: Tensor, b: Tensor) -> Tensor:
        value = torch.stack([a, b], dim=1)
        return torch.where(usable.view(len(value), *(1,) * (value.dim() - 2), usable.shape[1]), value.double(), 0.0)

    weight = flat(weight)
    usable = (weight > 0) & (weight < math.inf)
    for value in (points_a, points_b, covariance_a, covariance_b, origin_a, origin_b):
        usable = usable if value is None else usable & _is_finite(flat(value))
    # What is not usable is zero before anything is computed, so that no gradient is NaN.
    points = rays = both(flat(points_a), flat(points_b))
    if origin_a is not None or origin_b is not None:
        origins = (torch.zeros_like(points_a) if origin is None else origin for origin in (origin_a, origin_b))
        rays = points - both(*map(flat, origins))
    covariance = both(
        *(
            isotropic_covariance(ray.mT).movedim(1, -1) if value is None else flat(value)
            for value, ray in zip((covariance_a, covariance_b), rays.unbind(dim=1), strict=True)
        )
    )
    squared = rays.square().sum(dim=2) + FLOOR_M**2
    along = ((covariance * rays[:, :, :, None]).sum(dim=2) * rays).sum(dim=2) / squared
    across = (covariance.diagonal(dim1=2, dim2=3).sum(dim=-1) - along) / 2
    if proportional:
        along, across = along / squared, across / squared
    rays = torch.stack([-rays[:, 0], rays[:, 1]], dim=1)
    return Matches(points, rays, along - across, across, torch.where(usable, weight.double(), 0.0))


def _is_finite(value: Float[Tensor, "b *k n"]) -> Bool[Tensor, "b n"]:
    return torch.linalg.vector_norm(value.detach(), ord=math.inf, dim=tuple(range(1, value.dim() - 1))) < math.inf


@torch.no_grad()
def _minimum(matches: Matches, cost: Cost, hypotheses: int) -> tuple[Float[Tensor, "b 4 4"], Bool[Tensor, " b"]]:
    """Pose of least cost, and whether the matches leave it undetermined; then it is the identity."""
    pose = _start(matches, cost, hypotheses)
    for widening in _WIDENING:
        pose = descend(pose, matches, cost, widening)
    for _ in range(_NEWTON_STEPS):
        pose = descend(pose, matches, cost, newton=True)
    degenerate = _is_degenerate(pose, matches, cost)
    return torch.where(degenerate[:, None, None], identity(4, pose), pose), degenerate


def _appraised(pose: Float[Tensor, "b 4 4"], matches: Matches, cost: Cost, degenerate: Bool[Tensor, " b"]) -> Alignment:
    """A pose with what the matches say of it."""
    residuals = residuals_at(pose, matches, cost)
    inlier = cost.kernel(residuals.squared) * (matches.weight > 0)
    agreeing = matches.weight * inlier
    information = information_at(pose, residuals, efficiency(cost.width) * agreeing, cost)
    score = agreeing.sum(dim=-1) / matches.weight.sum(dim=-1).clamp(min=1e-300)
    return Alignment(pose, inlier, torch.where(degenerate[:, None, None], 0.0, information), degenerate, score)


def _unleveled(aligned: Alignment, level: Float[Tensor, "b 2 4 4"]) -> Alignment:
    """What was found between leveled frames, between the agents' own."""
    of_a, of_b = level.unbind(dim=1)
    pose = torch.where(aligned.degenerate[:, None, None], aligned.pose, invert(of_a) @ aligned.pose @ of_b)
    turn = torch.kron(identity(2, level)[None], of_a[:, :3, :3])
    return aligned._replace(pose=pose, information=turn.mT @ aligned.information @ turn)


def ray_covariance(
    points: Float[Tensor, "*b n 3"], range_sigma: float | Tensor, bearing_sigma: float | Tensor
) -> Float[Tensor, "*b n 3 3"]:
    """Covariance of points that are a ray times a range.

    Args:
        points: as seen from the ray's origin, meters.
        range_sigma: standard deviation of the range relative to the range, or of its logarithm; ``(*b n)`` or a number.
        bearing_sigma: standard deviation of the direction, radians, about each axis across the ray; likewise.
    """
    outer = points[..., :, None] * points[..., None, :]
    squared = points.square().sum(dim=-1)[..., None, None]
    along = torch.as_tensor(range_sigma, dtype=points.dtype, device=points.device)[..., None, None].square()
    across = torch.as_tensor(bearing_sigma, dtype=points.dtype, device=points.device)[..., None, None].square()
    return along * outer + across * (squared * torch.eye(3, dtype=points.dtype, device=points.device) - outer)


def squared_mahalanobis(
    pose: Float[Tensor, "*b 4 4"], information: Float[Tensor, "*b 6 6"], true: Float[Tensor, "*b 4 4"]
) -> Float[Tensor, " *b"]:
    """Squared size of a pose's error in standard deviations; of normal errors, chi-squared of 6 degrees of freedom.

    Args:
        pose: estimated.
        information: of :class:`Alignment`.
        true: the true pose.
    """
    turn = roma.rotmat_to_rotvec(true[..., :3, :3] @ pose[..., :3, :3].mT)
    error = torch.cat([turn, true[..., :3, 3] - pose[..., :3, 3]], dim=-1)[..., None]
    return (error.mT @ information @ error)[..., 0, 0]


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
    ``E[psi']^2 / E[psi psi']`` of what the matches contain (Huber 1981), while the weights sum up to ``E[u]`` of it.
    """
    x = np.linspace(0, 12, 4001)
    density = x**2 * np.exp(-(x**2) / 2)
    density /= density.sum()
    ratio = (x / width) ** 2
    kernel = (1 + ratio) ** -2.0
    slope = (density * (kernel - 4 / 3 * ratio * (1 + ratio) ** -3.0)).sum()
    power = (density * kernel**2 * x**2).sum() / 3
    return float(slope**2 / power / (density * kernel).sum())


def _start(matches: Matches, cost: Cost, hypotheses: int) -> Float[Tensor, "b 4 4"]:
    """The best of a few candidates after some steps on the weightiest matches."""
    top = top_matches(matches)
    size = top.rays.square().sum(dim=2) if cost.proportional else 1.0
    variance = ((top.scale + 3 * top.across) * size).sum(dim=1)  # expected square of the residual
    candidates = best_candidates(top, variance, cost.tilt_sigma is not None, hypotheses, _CANDIDATES)
    repeated = top.map(lambda value: value.repeat_interleave(_CANDIDATES, dim=0))
    cost = cost._replace(width=min(cost.width, WIDTH), corrected=False)
    poses = candidates.flatten(0, 1)
    for widening in _CANDIDATE_WIDENING:
        poses = descend(poses, repeated, cost, widening)
    squared = residuals_at(poses, repeated, cost).squared / (2 * cost.width) ** 2
    score = (repeated.weight / (1 + squared)).sum(dim=-1).unflatten(0, (-1, _CANDIDATES))
    best = score.nan_to_num(nan=-1.0).argmax(dim=-1)
    return poses.unflatten(0, (-1, _CANDIDATES))[torch.arange(len(best), device=best.device), best]


def _is_degenerate(pose: Float[Tensor, "b 4 4"], matches: Matches, cost: Cost) -> Bool[Tensor, " b"]:
    residuals = residuals_at(pose, matches, cost)
    kernel = cost.kernel(residuals.squared)
    agreeing = ((matches.weight > 0) & (kernel >= 0.25)).sum(dim=-1)
    relative = matches.weight * kernel / matches.weight.amax(dim=-1, keepdim=True).clamp(min=1e-300)
    information = damped(information_at(pose, residuals, relative, cost))
    factor, failed = torch.linalg.cholesky_ex(information.add(identity(6, pose), alpha=1e-12))
    # not by torch.cholesky_inverse: for several matrices on a GPU that is MAGMA's, which no CUDA graph can contain
    inverse = torch.linalg.solve_triangular(factor, identity(6, factor), upper=False)
    variance = inverse.square().sum(dim=-2)
    rotation, translation = variance[:, :3].sum(dim=-1).sqrt(), variance[:, 3:].sum(dim=-1).sqrt()
    determined = (rotation < MAX_ROTATION_SIGMA) & (translation < MAX_TRANSLATION_SIGMA_M) & (failed == 0)
    return ~(determined & (agreeing >= MIN_MATCHES) & pose.isfinite().flatten(-2).all(dim=-1))
