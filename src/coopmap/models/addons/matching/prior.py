"""Pose priors (GPS) in matching: they make matches that contradict them unlikely, and complete what images say.

The network is not told the priors: told, it repeats them. Two estimates with known uncertainty, one from the images and
one from the sensor, are combined as such.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.geometry.alignment import Alignment
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.se3 import invert, relative_pose, transform_points
from coopmap.geometry.step_algebra import identity
from coopmap.types import Observation

HEIGHT_SIGMA_M = 0.3
"""Of the height of a pose prior, whose noise is stated for the horizontal axes."""
LEAST_SIGMA_M, LEAST_SIGMA_RAD = 0.01, math.radians(0.05)
"""An exact prior counts as this accurate."""
CELL_SIGMA_M = 1.0
"""Of the position of a cell's point across its ray, beside the relative error of its range."""


class PairPriors(NamedTuple):
    """Pose priors of all pairs ``i < j``.

    Attributes:
        pose: ``T_i_j``.
        sigma_m: standard deviation of its translation along a horizontal axis, meters.
        sigma_rad: of its yaw, radians.
        known: both agents have one.
    """

    pose: Float[Tensor, "b p 4 4"]
    sigma_m: Float[Tensor, "b p"]
    sigma_rad: Float[Tensor, "b p"]
    known: Bool[Tensor, "b p"]


def pair_priors(observation: Observation, views: int) -> PairPriors | None:
    """Priors of all pairs of agents; ``None`` where the observation has none.

    An error of yaw of ``i`` moves ``j`` sideways by the distance between both.

    Args:
        observation: with ``pose_prior``; used are those that are given and metric.
        views: number of an agent's views; the first one's prior counts.
    """
    if observation.pose_prior is None:
        return None
    pose = observation.pose_prior.double()
    if observation.rig_pose is not None:
        pose = pose @ invert(observation.rig_pose.double())
    pose = pose[:, ::views]
    known = torch.ones(pose.shape[:2], dtype=torch.bool, device=pose.device)
    for mask in (observation.pose_given, observation.pose_is_metric):
        known = known if mask is None else known & mask[:, ::views]
    sigma = pose.new_zeros(*pose.shape[:2], 2) if observation.pose_sigma is None else observation.pose_sigma[:, ::views]
    # whatever stands where none is given: a NaN there would be in every gradient
    pose = torch.where(known[..., None, None], pose, identity(4, pose))
    sigma = torch.where(known[..., None], sigma, 0.0)
    i, j = pair_ends(pose.shape[1], pose.device)
    relative = relative_pose(pose[:, i], pose[:, j])
    sigma_m, sigma_rad = (sigma[:, i].square() + sigma[:, j].square()).sqrt().to(pose).unbind(-1)
    sideways = sigma[:, i, 1] * relative[..., :3, 3].norm(dim=-1)
    sigma_m = torch.hypot(sigma_m, sideways.to(sigma_m)).clamp(min=LEAST_SIGMA_M)
    return PairPriors(relative, sigma_m, sigma_rad.clamp(min=LEAST_SIGMA_RAD), known[:, i] & known[:, j])


def log_agreement(
    priors: PairPriors | None, points: Float[Tensor, "b a c 3"], range_sigma: Float[Tensor, "b a c"]
) -> Float[Tensor, "b p c c"] | None:
    """Logarithm of how well a match of two cells agrees with the prior; 0 where there is no prior, None without any.

    Cauchy's: an error in either is no proof against the other.

    Args:
        priors: of the pairs.
        points: of the cells, agents' frames.
        range_sigma: relative errors of their ranges.
    """
    if priors is None:
        return None
    i, j = pair_ends(points.shape[1], points.device)
    ranges = points.norm(dim=-1)
    variance = (range_sigma * ranges).square() + CELL_SIGMA_M**2
    turned = (priors.sigma_rad[..., None].to(ranges) * ranges[:, j]).square()
    expected = variance[:, i, :, None] + (variance[:, j] + turned)[:, :, None]
    expected = expected + priors.sigma_m.to(ranges).square()[..., None, None]
    moved = transform_points(priors.pose.to(points), points[:, j])
    distance = torch.cdist(points[:, i], moved)
    agreement = -torch.log1p(distance.square() / expected)
    return torch.where(priors.known[..., None, None], agreement, 0.0)


def combined(
    alignment: Alignment, priors: PairPriors, confidence: Float[Tensor, "b p"], tilt_sigma: float
) -> Float[Tensor, "b p 4 4"]:
    """The pose that both estimates together make most likely; the prior's alone where the matches determine none.

    What the alignment knows counts by its confidence: a wrong pose is sure of itself.

    Args:
        alignment: of the pairs.
        priors: of the pairs.
        confidence: probability that the alignment is right.
        tilt_sigma: standard deviation of roll and pitch of the prior, radians.
    """
    aligned = alignment.pose.double()
    turn = roma.rotmat_to_rotvec(priors.pose[..., :3, :3] @ aligned[..., :3, :3].mT)
    innovation = torch.cat([turn, priors.pose[..., :3, 3] - aligned[..., :3, 3]], dim=-1)
    tilt, height = torch.full_like(priors.sigma_m, tilt_sigma), torch.full_like(priors.sigma_m, HEIGHT_SIGMA_M)
    sigma = torch.stack([tilt, priors.sigma_rad, tilt, priors.sigma_m, height, priors.sigma_m], dim=-1)
    from_prior = torch.diag_embed(sigma.square().reciprocal())
    from_images = alignment.information.double() * confidence.double()[..., None, None].square()
    from_images = torch.where(alignment.degenerate[..., None, None], 0.0, from_images)
    pull = (from_prior @ innovation[..., None])[..., 0]
    correction = torch.linalg.solve_ex(from_images + from_prior, pull)[0]  # `solve` would wait for the device
    pose = aligned.clone()
    pose[..., :3, :3] = roma.rotvec_to_rotmat(correction[..., :3]) @ aligned[..., :3, :3]
    pose[..., :3, 3] = aligned[..., :3, 3] + correction[..., 3:]
    pose = torch.where(alignment.degenerate[..., None, None], priors.pose, pose)
    return torch.where(priors.known[..., None, None], pose, aligned).to(alignment.pose)
