"""Poses of all agents of a frame from the matches of all their pairs at once.

Averaging pairs sees one pose of each. Here every match counts where all poses together put it: what one pair leaves
open (mostly the distance, since ranges are uncertain) others decide. Minimized is the sum over pairs of

    pair_weight * (cost of the pair's matches and of its tilt, as in alignment)

over ``n - 1`` poses in place of ``n (n - 1) / 2``, by reweighted Gauss-Newton steps, then Newton steps, from poses that
are nearly right (:mod:`coopmap.geometry.pose_averaging`). A step of agent k moves the relative poses of its pairs
linearly, so that gradients and matrices are those of :mod:`coopmap.geometry.alignment_cost`, gathered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.alignment import WIDTH, ray_matches
from coopmap.geometry.alignment_cost import (
    Cost,
    Matches,
    curvature_at,
    damped,
    gradient_at,
    information_at,
    leveling,
    moved,
    residuals_at,
)
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import invert, relative_pose
from coopmap.geometry.step_algebra import constants_of, identity, unless_too_large

_WIDENING = (1.5, 1.0, 1.0, 1.0)  # of the kernel, per Gauss-Newton step
_NEWTON_STEPS = 3


@torch.no_grad()
def bundle(
    start: Float[Tensor, "b n 4 4"],
    pair_weight: Float[Tensor, "b p"],
    points_i: Float[Tensor, "b p m 3"],
    points_j: Float[Tensor, "b p m 3"],
    weight: Float[Tensor, "b p m"],
    covariance_i: Float[Tensor, "b p m 3 3"] | None = None,
    covariance_j: Float[Tensor, "b p m 3 3"] | None = None,
    tilt_sigma: float | None = None,
    origin_i: Float[Tensor, "b p m 3"] | None = None,
    origin_j: Float[Tensor, "b p m 3"] | None = None,
    down_i: Float[Tensor, "b p 3"] | None = None,
    down_j: Float[Tensor, "b p 3"] | None = None,
    *,
    width: float = WIDTH,
) -> Float[Tensor, "b n 4 4"]:
    """Refine the poses of agents with the matches of all pairs ``i < j`` (ordered 01, 02, ..., 12, ...).

    No random numbers, no host synchronization, float64 inside; without gradients.

    Args:
        start: poses of the agents in one frame. Where one is not finite, the agent takes no part.
        pair_weight: how much each pair counts, at least 0. With 0, or a value that is not finite, not at all.
        points_i: the matches' points in agent i's frame; like all further arguments as
            :func:`coopmap.geometry.alignment.align` takes them.
        points_j: the same matches' points in agent j's frame.
        weight: confidence of each match.
        covariance_i: of the errors of ``points_i``.
        covariance_j: of the errors of ``points_j``.
        tilt_sigma: of each pair, radians.
        origin_i: where the ray of each of ``points_i`` starts, in agent i's frame; by default the agent's center.
        origin_j: the same in agent j's frame.
        down_i: vertical axis of agent i in its own frame, of each pair, so an agent's several times; by default y.
        down_j: the same of agent j.
        width: of the robust kernel, in standard deviations.

    Returns:
        Float64 poses in the frame of agent 0; not finite where ``start`` is not. What no pair determines stays.
    """
    start = start.double()
    agents = start.shape[1]
    i, j = pair_ends(agents, start.device)
    start = relative_pose(start[:, :1], start)
    if agents == 1:
        return start
    present = start.isfinite().flatten(2).all(dim=-1)
    pose = torch.where(present[..., None, None], start, identity(4, start))
    usable = (pair_weight > 0) & pair_weight.isfinite() & present[:, i] & present[:, j]
    share = torch.where(usable, pair_weight.double(), 0.0)
    matches = ray_matches(points_i, points_j, weight, covariance_i, covariance_j, origin_i, origin_j)
    level = None
    if down_i is not None and down_j is not None:
        level = leveling(torch.cat([down_i[:, :1], down_j[:, : agents - 1]], dim=1))  # pairs 01, 02, ... have all
        pose = level[:, :1] @ pose @ invert(level)
        matches = matches.leveled(torch.stack([level[:, i], level[:, j]], dim=2).flatten(0, 1))
    cost = Cost(tilt_sigma, width, proportional=True)
    for widening in _WIDENING:
        pose = _descend(pose, share, matches, cost, widening)
    for _ in range(_NEWTON_STEPS):
        pose = _descend(pose, share, matches, cost, newton=True)
    pose = pose if level is None else invert(level[:, :1]) @ pose @ level
    return torch.where(present[..., None, None], pose, torch.nan)


def _descend(
    pose: Float[Tensor, "b n 4 4"],
    share: Float[Tensor, "b p"],
    matches: Matches,
    cost: Cost,
    widening: float = 1.0,
    newton: bool = False,
) -> Float[Tensor, "b n 4 4"]:
    """One step of all agents but the first, which holds the frame."""
    agents = pose.shape[1]
    i, j = pair_ends(agents, pose.device)
    relative = relative_pose(pose[:, i], pose[:, j]).flatten(0, 1)
    residuals = residuals_at(relative, matches, cost)
    weight = matches.weight * cost.kernel(residuals.squared, widening)
    matrix = information_at(relative, residuals, weight, cost)
    if newton:
        matrix = curvature_at(damped(matrix), residuals, weight, cost)
    gradient = gradient_at(relative, residuals, weight, cost).unflatten(0, share.shape)
    matrix = torch.where(share[..., None, None] > 0, share[..., None, None] * matrix.unflatten(0, share.shape), 0.0)
    gradient = torch.where(share[..., None] > 0, share[..., None] * gradient, 0.0)
    jacobian = _steps_of_pairs(pose)[..., 6:]
    whole = damped((jacobian.mT @ matrix @ jacobian).sum(dim=1))
    pull = (jacobian.mT @ gradient[..., None]).sum(dim=1)
    step = unless_too_large(torch.linalg.solve_ex(whole, pull)[0][..., 0].unflatten(1, (agents - 1, 6)))
    rest = moved(pose[:, 1:].flatten(0, 1), step.flatten(0, 1)).unflatten(0, step.shape[:2])
    return torch.cat([pose[:, :1], rest], dim=1)


def _steps_of_pairs(pose: Float[Tensor, "b n 4 4"]) -> Float[Tensor, "b p 6 k"]:
    """Steps of all pairs' ``T_i_j``, in i's axes, per step ``(omega, rho)`` of each agent in the common axes.

    With ``R_k -> C(omega_k) R_k`` and ``t_k -> t_k + rho_k``, that is ``R_i' (omega_j - omega_i)`` and
    ``R_i' (rho_j - rho_i + (t_j - t_i) x omega_i)``.
    """
    agents = pose.shape[1]
    i, j = pair_ends(agents, pose.device)
    is_agent = identity(agents, pose)[:, None, :, None]
    back = pose[:, i, :3, :3].mT
    apart = pose[:, j, :3, 3] - pose[:, i, :3, 3]
    lever = (apart @ constants_of(pose).cross).unflatten(-1, (3, 3))
    of_j = (identity(2, pose)[:, None, :, None] * back[..., None, :, None, :]).flatten(-2).flatten(-3, -2)
    of_i = F.pad(back @ lever, (0, 3, 3, 0)) - of_j
    return (of_i[..., None, :] * is_agent[i] + of_j[..., None, :] * is_agent[j]).flatten(-2)
