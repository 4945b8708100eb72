"""Relative poses of pairs of agents from matches, and one pose per view from them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.alignment import Alignment, ray_covariance
from coopmap.geometry.bundle import bundle
from coopmap.geometry.cells import take
from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.pose_averaging import average_relative_poses, over_agents
from coopmap.geometry.se3 import invert, pose_from_quat_trans, quat_trans_from_pose, relative_pose
from coopmap.models.addons.matching.cells import LinesOfSight
from coopmap.models.addons.matching.matches import Correspondences
from coopmap.models.decoding import with_poses
from coopmap.types import Observation, PairMatches, Prediction

BEARING_SIGMA_CELLS = 0.2
"""Error of a match's direction, in cells; uniform over a part of a cell, it is 0.15."""
LARGEST_STRETCH = 10.0
"""Relative error along a line of sight, at most, per relative error of the distance from the agent's center."""
LEAST_CONFIDENCE = 0.05
DECISIVENESS = 4
"""Power of the confidence that a pair counts by: few sure pairs determine all poses, and unsure ones are meters off."""
SMALLEST_WEIGHT = 1e-8
"""Confidences below count as this much, so that the root has a derivative."""


class PairProblem(NamedTuple):
    """What :func:`~coopmap.geometry.alignment.align` and :func:`~coopmap.geometry.bundle.bundle` take, of all pairs."""

    points_i: Float[Tensor, "b p m 3"]
    points_j: Float[Tensor, "b p m 3"]
    weight: Float[Tensor, "b p m"]
    covariance_i: Float[Tensor, "b p m 3 3"]
    covariance_j: Float[Tensor, "b p m 3 3"]
    tilt_sigma: float | None
    origin_i: Float[Tensor, "b p m 3"] | None = None
    origin_j: Float[Tensor, "b p m 3"] | None = None
    down_i: Float[Tensor, "b p 3"] | None = None
    down_j: Float[Tensor, "b p 3"] | None = None

    def lengthened(self, factor: Float[Tensor, "b p"]) -> PairProblem:
        """The same in other units of length, a factor per pair: poses turn as they did, and are that much longer."""
        by = factor[..., None, None]

        def times(value: Tensor | None) -> Tensor | None:
            return None if value is None else value * by

        return self._replace(
            points_i=self.points_i * by,
            points_j=self.points_j * by,
            covariance_i=self.covariance_i * by[..., None].square(),
            covariance_j=self.covariance_j * by[..., None].square(),
            origin_i=times(self.origin_i),
            origin_j=times(self.origin_j),
        )


def lengthened(alignment: Alignment, factor: Float[Tensor, "b p"]) -> Alignment:
    """The alignment of :meth:`PairProblem.lengthened`."""
    rotation, translation = alignment.pose[..., :3], alignment.pose[..., 3:]
    one = torch.ones_like(factor)
    of_translation = torch.stack([factor, factor, factor, one], dim=-1)
    of_steps = torch.stack([one, one, one, factor, factor, factor], dim=-1).reciprocal()
    return alignment._replace(
        pose=torch.cat([rotation, translation * of_translation[..., None]], dim=-1),
        information=of_steps[..., :, None] * alignment.information * of_steps[..., None, :],
    )


def pair_problem(
    found: Correspondences,
    range_sigma: Float[Tensor, "b a c"],
    cell_angle: Float[Tensor, ""],
    tilt_sigma_deg: float | None,
    lines: LinesOfSight | None = None,
    down: Float[Tensor, "b a 3"] | None = None,
) -> PairProblem:
    """Matches with their uncertainties: of the range along the line of sight, of its direction across it.

    Args:
        found: matches.
        range_sigma: relative error of the predicted range of each agent's cells.
        cell_angle: between neighboring cells, radians.
        tilt_sigma_deg: of roll and pitch of ``T_i_j``, beyond what ``down`` says of them.
        lines: where the cells' lines of sight start; by default at the agents' origins.
        down: directions of gravity in the agents' frames; by default y.
    """
    agents = range_sigma.shape[1]
    ends = pair_ends(agents, range_sigma.device)
    bearing_sigma = BEARING_SIGMA_CELLS * cell_angle
    covariances, origins = [], []
    for side, (end, points) in enumerate(zip(ends, (found.points_i, found.points_j), strict=True)):
        cells = found.cells[..., side]
        sigma, sight, origin = range_sigma[:, end].gather(2, cells), points, None
        if lines is not None:
            origin = take(lines.origin[:, end], cells).to(points)
            sight = points - origin
            sigma = sigma * _stretch(points, sight) if lines.from_center else sigma
        covariances.append(ray_covariance(sight, sigma, bearing_sigma))
        origins.append(origin)
    tilt_sigma = None if tilt_sigma_deg is None else math.radians(tilt_sigma_deg)
    problem = PairProblem(
        found.points_i, found.points_j, tempered(found.weight), covariances[0], covariances[1], tilt_sigma, *origins
    )
    return problem if down is None else problem._replace(down_i=down[:, ends[0]], down_j=down[:, ends[1]])


def _stretch(points: Float[Tensor, "*b 3"], sight: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Relative change of a point's distance from its camera per relative change of that from the agent's center.

    Along the line of sight ``s`` to the point ``x``: ``d|s| / |s| = (|x|^2 / x's) d|x| / |x|``.
    """
    squared = points.square().sum(dim=-1)
    return squared / torch.maximum((points * sight).sum(dim=-1), squared / LARGEST_STRETCH).clamp(min=1e-12)


def tempered(weight: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """Square roots of the confidences, with the same sum over matches.

    A confidence is a product of two distributions over cells: of two right matches, one may well have ten times the
    confidence of the other, but it does not say ten times as much.
    """
    root = torch.where(weight > 0, weight.clamp(min=SMALLEST_WEIGHT).sqrt(), 0.0)
    return root * (weight.sum(dim=-1, keepdim=True) / root.sum(dim=-1, keepdim=True).clamp(min=SMALLEST_WEIGHT))


def with_aligned_poses(
    prediction: Prediction,
    observation: Observation,
    views: int,
    pose_from: str,
    problem: PairProblem | None = None,
) -> Prediction:
    """The prediction with poses averaged over all pairs; the regressed ones where no pair determines any.

    From ``alignment`` and with the matches, the average is where the bundle of all pairs starts.

    Args:
        prediction: with ``matches``.
        observation: with the rig, where views are cameras.
        views: number of an agent's views.
        pose_from: ``alignment``, or ``both``: regressed poses count by what the aligned ones lack in confidence.
        problem: matches of all pairs; ``None`` where poses of pairs contain more than these, as with priors.
    """
    regressed = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans).double()
    rig = None if observation.rig_pose is None else observation.rig_pose.double()
    first_of_agent = regressed[:, ::views] if rig is None else regressed[:, ::views] @ invert(rig[:, ::views])
    matches = prediction.matches
    assert matches is not None
    found = matches.pose if matches.combined is None else matches.combined
    measured, weight = over_agents(found, pair_weights(matches), first_of_agent.shape[1])
    if pose_from == "both":
        from_head = relative_pose(first_of_agent[:, :, None], first_of_agent[:, None])
        rest = torch.ones_like(weight).triu(1) - weight
        measured, weight = torch.stack([measured, from_head], dim=1), torch.stack([weight, rest], dim=1)
    else:
        # what priors complete is no worse where matches say little
        power = DECISIVENESS if matches.combined is None else 1
        measured, weight = measured[:, None], weight[:, None] ** power
    agents = average_relative_poses(measured, weight)
    if problem is not None and pose_from == "alignment":
        first, second = pair_ends(agents.shape[1], agents.device)
        agents = bundle(agents, weight[:, 0, first, second], *problem)
    fallback = relative_pose(first_of_agent[:, :1], first_of_agent)
    agents = torch.where(agents.isfinite().flatten(-2).all(dim=-1)[..., None, None], agents, fallback)
    pose = agents.repeat_interleave(views, dim=1)
    if rig is not None:
        pose = invert(rig[:, :1]) @ pose @ rig
    quat, trans = quat_trans_from_pose(pose.to(prediction.pose_trans))
    return with_poses(prediction, quat, trans)


def pair_weights(matches: PairMatches) -> Float[Tensor, "b p"]:
    """Confidence of each pair, float64; 0 where it has no pose."""
    found = matches.pose if matches.combined is None else matches.combined
    usable = matches.determined & found.isfinite().flatten(-2).all(dim=-1)
    confidence = matches.confidence_logit.double().sigmoid().clamp(LEAST_CONFIDENCE, 1 - LEAST_CONFIDENCE)
    return torch.where(usable, confidence, 0.0)
