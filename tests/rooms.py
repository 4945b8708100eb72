"""Agents in an empty room: geometry that is known exactly, and of which every agent sees everything."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from coopmap.geometry.cells import PARTS
from coopmap.geometry.se3 import rotate, transform_points
from coopmap.losses.cells import true_matches
from coopmap.types import Observation, PairMatches, Prediction, Target

HALF_M = torch.tensor([14.0, 4.0, 18.0])
"""Half of the room's width, height and length."""


def panorama_rays(height: int, width: int) -> Tensor:
    """Unit rays ``(h, w, 3)`` of an equirectangular panorama of 90 degrees in height."""
    azimuth = 2 * math.pi * ((torch.arange(width) + 0.5) / width - 0.5)
    elevation = math.pi / 2 * (0.5 - (torch.arange(height) + 0.5) / height)
    elevation, azimuth = torch.meshgrid(elevation, azimuth, indexing="ij")
    across = elevation.cos()
    return torch.stack([across * azimuth.sin(), -elevation.sin(), across * azimuth.cos()], dim=-1)


def level_pose(x: float, z: float, yaw_deg: float) -> Tensor:
    """``T_world_agent`` of a level agent."""
    cosine, sine = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    return torch.tensor([[cosine, 0, sine, x], [0, 1, 0, 0], [-sine, 0, cosine, z], [0, 0, 0, 1]])


def three_poses() -> Tensor:
    """Poses ``(1, 3, 4, 4)`` of agents with headings all around."""
    return torch.stack([level_pose(0.0, -9.0, 10.0), level_pose(-5.0, 7.0, 190.0), level_pose(6.0, 2.0, -75.0)])[None]


def room(pose: Tensor, height: int = 56, width: int = 224) -> Target:
    """What panoramas of agents at ``pose (b, v, 4, 4)`` see."""
    rays = panorama_rays(height, width).expand(*pose.shape[:2], -1, -1, -1)
    directions = rotate(pose, rays.flatten(2, 3))
    start = pose[..., None, :3, 3]
    ahead = torch.where(directions > 0, HALF_M - start, HALF_M + start) / directions.abs().clamp(min=1e-9)
    depth = ahead.amin(dim=-1).view(rays.shape[:-1])
    everywhere = torch.ones_like(depth, dtype=torch.bool)
    flags = torch.ones(len(pose), dtype=torch.bool)
    return Target(rays, depth, everywhere, everywhere, pose, flags, flags)


def in_quarters(target: Target) -> Target:
    """The same agents, each with four cameras at its center that see a quarter of the panorama each."""

    def quarters(maps: Tensor) -> Tensor:
        return torch.stack(maps.chunk(4, dim=3), dim=2).flatten(1, 2)

    maps = {name: quarters(getattr(target, name)) for name in ("rays", "depth", "valid", "non_ambiguous")}
    pose = target.pose.repeat_interleave(4, dim=1)
    views = torch.arange(pose.shape[1]).expand(len(pose), -1)
    rig = torch.eye(4).expand_as(pose)
    return replace(target, **maps, pose=pose, agent=views // 4, rig_pose=rig, views_per_agent=4)


def exact_prediction(target: Target) -> Prediction:
    """The truth as a prediction, except for poses, which are all view 0's."""
    batch, views = target.pose.shape[:2]
    return Prediction(
        rays=target.rays,
        depth=target.depth,
        pose_trans=torch.zeros(batch, views, 3),
        pose_quat=torch.tensor([0.0, 0, 0, 1]).expand(batch, views, 4),
        scale=torch.ones(batch),
        confidence=torch.full_like(target.depth, 2.0),
        mask_logits=torch.full_like(target.depth, 9.0),
        points_view=target.points_view,
        points_world=target.points_view,
    )


def observation_of(target: Target) -> Observation:
    """Calibrated rays, and images that show nothing."""
    images = torch.zeros(*target.depth.shape[:2], 3, *target.depth.shape[2:])
    return Observation(images=images, rays=target.rays)


def points_in_world(target: Target) -> Tensor:
    """Every pixel's point in the world, ``(b, v, h, w, 3)``."""
    points = target.points_view
    return transform_points(target.pose, points.flatten(2, 3)).view_as(points)


def sparse(target: Target, share: float) -> Target:
    """The target with depth known at random pixels only, as from a LiDAR."""
    kept = torch.rand(target.depth.shape, generator=torch.Generator().manual_seed(0)) < share
    return replace(target, valid=kept, depth=target.depth * kept)


def knowing_matches(target: Target, patch_size: int = 14) -> PairMatches:
    """Scores that know the true cells, and descriptors of parts that know nothing."""
    true = true_matches(target, target.depth[0, 0].numel() // patch_size**2, 0.4)
    batch, pairs, cells = true.part[0].shape
    scores = torch.full((batch, pairs, cells, cells), -20.0)
    cell = true.part[0] // PARTS**2
    scores.scatter_(-1, cell[..., None], torch.where(true.matched[0], 20.0, -20.0)[..., None])
    agents = target.pose.shape[1]
    nothing = torch.zeros(batch, pairs)
    return PairMatches(
        scores=scores,
        unmatched=torch.zeros(batch, agents, cells),
        query=torch.zeros(batch, agents, cells, 2),
        keys=torch.zeros(batch, agents, cells, PARTS**2, 2),
        range_sigma=torch.full((batch, agents, cells), 0.05),
        pose=torch.eye(4).expand(batch, pairs, 4, 4),
        lengthening=torch.ones(batch, pairs),
        information=torch.zeros(batch, pairs, 6, 6),
        degenerate=nothing.bool(),
        confidence_logit=nothing,
        covisibility_logit=nothing,
        matched=torch.zeros(batch, pairs, 2, 2, dtype=torch.int64),
        weight=torch.ones(batch, pairs, 2),
        inlier=torch.ones(batch, pairs, 2),
    )
