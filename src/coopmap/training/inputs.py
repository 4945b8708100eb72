"""Which geometric inputs the views of a batch come with, drawn from an explicit generator."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.types import Observation


def draw_inputs(
    observation: Observation, task: TaskConfig, priors: PriorsConfig, generator: torch.Generator
) -> Observation:
    """Keep each geometric input with the task's probability (upstream ``_encode_and_fuse_optional_geometric_inputs``).

    Rays, depth and poses are drawn per sample, dropout per view. Upstream decides once per batch whether to sparsify
    depth, and removes an exact share of the pixels; here each sample and each pixel is drawn, with the same
    probability.

    Args:
        observation: with the priors that the task may give; others are removed.
        task: probabilities of the geometric inputs that upstream knows.
        priors: probabilities of agent poses, which replace the task's, and of the rig.
        generator: on the device of the images; same state, same inputs.

    Returns:
        The observation with the masks of what is given.
    """
    batch, views = observation.images.shape[:2]

    def chance(probability: float, *shape: int) -> Bool[Tensor, "..."]:
        return torch.rand(shape, generator=generator, device=observation.images.device) < probability

    def drawn_prior(asked_for: bool) -> Bool[Tensor, "b v"]:
        here = chance(float(asked_for) * (1 - priors.absent_sample), batch, 1)
        return here & _of_agents(~chance(priors.absent_agent, batch, views), observation.agent)

    given = chance(task.geometric, batch, 1) & ~chance(task.view_dropout, batch, views)
    rays, depth, pose = (chance(p, batch, 1) & given for p in (task.rays, task.depth, task.pose))
    thinned = chance(task.sparse_depth, batch, 1)
    hidden_depth_scale, hidden_pose_scale = (
        chance(p, batch, views) for p in (task.hide_depth_scale, task.hide_pose_scale)
    )
    pose_prior, rig = drawn_prior(priors.gives_pose), drawn_prior(priors.rig)
    depth_prior = observation.depth_prior if task.may_give("depth") else None
    if depth_prior is not None and task.sparse_depth > 0:
        depth_prior = _thin(depth_prior, thinned, chance(task.sparse_depth_removed, *depth_prior.shape))
    return replace(
        observation,
        depth_prior=depth_prior,
        pose_prior=observation.pose_prior if task.may_give("pose") or priors.gives_pose else None,
        rays_given=_both(observation.rays_given, rays),
        depth_given=_both(observation.depth_given, depth),
        pose_given=_both(observation.pose_given, pose_prior if priors.gives_pose else pose),
        rig_given=_both(observation.rig_given, rig),
        depth_is_metric=_both(observation.depth_is_metric, ~hidden_depth_scale),
        pose_is_metric=_both(observation.pose_is_metric, ~hidden_pose_scale),
    )


def _thin(
    depth: Float[Tensor, "b v h w"], thinned: Bool[Tensor, "b 1"], removed: Bool[Tensor, "b v h w"]
) -> Float[Tensor, "b v h w"]:
    return depth.masked_fill(thinned[..., None, None] & removed, 0.0)


def _of_agents(drawn: Bool[Tensor, "b v"], agent: Int[Tensor, "b v"] | None) -> Bool[Tensor, "b v"]:
    """One draw per agent: what was drawn for the view whose number is the agent's."""
    return drawn if agent is None else drawn.gather(1, agent)


def _both(known: Bool[Tensor, "b v"] | None, drawn: Bool[Tensor, "b v"]) -> Bool[Tensor, "b v"]:
    return drawn if known is None else known & drawn
