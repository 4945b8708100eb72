"""Averages the relative poses that a model predicts with each agent in turn as the reference view.

One pass of the model gives the poses of all views in the frame of its first view. With another view first it predicts
the same relative poses again, with different errors. The relative poses of all pairs, each predicted from both ends,
are averaged on SE(3) (:mod:`coopmap.geometry.pose_averaging`); or one of the passes is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopmap.geometry.pairs import pair_ends
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose
from coopmap.types import Observation, PairMatches, Prediction


def predict_from_each_agent(
    model: Callable[[Observation], Prediction], observation: Observation, first: Prediction | None = None
) -> tuple[Float[Tensor, "b n v 4 4"], Float[Tensor, "b n v"]]:
    """Run the model with each agent in turn as its first.

    Args:
        model: observation to prediction.
        observation: ``v`` views of ``n`` agents, those of one agent one after the other.
        first: the prediction with the views as they are, if already computed.

    Returns:
        Poses of the views as predicted with agent ``i`` as reference at ``[:, i]``, in the original order of views, and
        the mean confidence of the pixels of each view in that pass.
    """
    num_views = observation.images.shape[1]
    num_agents = num_views if observation.agent is None else int(observation.agent.max()) + 1
    views = torch.arange(num_views, device=observation.images.device).view(num_agents, -1)
    poses, confidences = [], []
    for reference in range(num_agents):
        forth = torch.cat([views[reference], views[:reference].flatten(), views[reference + 1 :].flatten()])
        if reference == 0 and first is not None:
            prediction = first
        else:
            prediction = model(observation.map(partial(torch.index_select, dim=1, index=forth)))
        pose = pose_from_quat_trans(prediction.pose_quat.double(), prediction.pose_trans.double())
        back = forth.argsort()
        poses.append(pose.index_select(1, back))
        confidences.append(prediction.confidence.double().mean(dim=(-2, -1)).index_select(1, back))
    return torch.stack(poses, dim=1), torch.stack(confidences, dim=1)


def refine(poses: Float[Tensor, "b n n 4 4"], confidence: Float[Tensor, "b n n"]) -> Float[Tensor, "b n 4 4"]:
    """Poses in agent 0's frame that agree best with one pass for each agent.

    A pass counts for the pairs of its own reference, which is what it predicts. Every pair then has two
    measurements, one from each end. A measurement weighs as much as the geometric mean of the confidences of its two
    agents.

    Args:
        poses: of agent ``j`` with agent ``i`` as reference at ``[:, i, j]``, in any frame common to a pass.
        confidence: of agent ``j`` in that pass.
    """
    agents = torch.arange(poses.shape[2], device=poses.device)
    relative = relative_pose(
        poses[:, agents, agents, None], poses
    )  # a model may predict the reference away from its origin
    weight = (confidence[:, agents, agents, None] * confidence).sqrt()
    return average_relative_poses(relative[:, None], weight[:, None])


def most_covisible(matches: PairMatches, num_agents: int) -> Int[Tensor, " b"]:
    """The agent of each sample that is expected to share most with the others, as their reference."""
    ends = pair_ends(num_agents, matches.covisibility_logit.device)
    shared = matches.covisibility_logit.detach().float().sigmoid()
    of_agents = shared.new_zeros(len(shared), num_agents)
    for end in ends:
        of_agents = of_agents.index_add(1, end, shared)
    return of_agents.argmax(dim=1)
