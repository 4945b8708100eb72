"""Samples and batches, stacked from views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from coopmap.data.views import View
from coopmap.data.world import moved_world
from coopmap.types import Batch, Observation, Sample, SkippedBatch, Target


@dataclass(frozen=True)
class SkippedSample:
    """A sample that could not be read."""

    skipped: tuple[str, ...]


def observation_of(views: list[View], num_agents: int) -> Observation:
    """What the cars have, without priors."""
    images = torch.from_numpy(np.stack([view.image for view in views])).movedim(-1, -3).contiguous()
    first, cells = views[0], [view.cells for view in views if view.cells is not None]
    shared = all(view.nominal_rays is first.nominal_rays for view in views)
    if shared:  # one panorama camera for all: no copies
        rays = torch.from_numpy(first.nominal_rays).expand(len(views), *first.nominal_rays.shape)
    else:
        rays = torch.from_numpy(np.stack([view.nominal_rays for view in views]))
    slots = None if first.rig_pose is None else torch.arange(len(views)) % (len(views) // num_agents)
    angles = [cell.angle for cell in cells if cell.angle is not None]
    grids = [cell.grid for cell in cells if cell.grid is not None]
    return Observation(
        images,
        rays,
        camera_angle=torch.from_numpy(np.stack(angles)) if angles else None,
        camera_grid=torch.from_numpy(np.stack(grids)) if grids else None,
        camera_pose=stacked_poses([cell.pose for cell in cells]) if cells else None,
        agent=_agent_numbers(views, num_agents),
        slot=slots,
        rig_pose=_rig_poses(views),
        ground_height_m=_ground_heights(views),
        gravity=torch.from_numpy(np.stack([view.pose[1, :3] for view in views]).astype(np.float32)),
    )


def target_of(views: list[View], num_agents: int, origin: Float[np.ndarray, " 3"], is_synthetic: bool) -> Target:
    """What is true of the views, in the world whose origin is given (:func:`~coopmap.data.world.world_origin`)."""
    depth = torch.from_numpy(np.stack([view.depth for view in views]))
    return Target(
        rays=torch.from_numpy(np.stack([view.rays for view in views])),
        depth=depth,
        valid=depth > 0,
        non_ambiguous=torch.from_numpy(np.stack([view.non_ambiguous for view in views])),
        pose=stacked_poses(moved_world([view.pose for view in views], origin)),
        is_metric=torch.tensor(True),
        is_synthetic=torch.tensor(is_synthetic),
        moving=_stacked_if_known([view.moving for view in views]),
        own_body=_stacked_if_known([view.own_body for view in views]),
        agent=_agent_numbers(views, num_agents),
        rig_pose=_rig_poses(views),
        ground_height_m=_ground_heights(views),
        views_per_agent=len(views) // num_agents,
    )


def _agent_numbers(views: list[View], num_agents: int) -> Int[Tensor, " v"] | None:
    if len(views) == num_agents:
        return None
    return torch.arange(num_agents).repeat_interleave(len(views) // num_agents)


def _ground_heights(views: list[View]) -> Float[Tensor, " v"]:
    return torch.tensor([view.ground_height_m for view in views], dtype=torch.float32)


def _rig_poses(views: list[View]) -> Float[Tensor, "v 4 4"] | None:
    poses = [view.rig_pose for view in views if view.rig_pose is not None]
    return stacked_poses(poses) if poses else None


def stacked_poses(poses: list[Float[np.ndarray, "*k 4 4"]]) -> Float[Tensor, "v *k 4 4"]:
    """Poses of a world near the origin, in single precision."""
    return torch.from_numpy(np.stack(poses).astype(np.float32))


def _stacked_if_known(masks: list[Bool[np.ndarray, "h w"] | None]) -> Bool[Tensor, "v h w"] | None:
    known = [mask for mask in masks if mask is not None]
    return torch.from_numpy(np.stack(known)) if len(known) == len(masks) else None


def collate(samples: list[Sample | SkippedSample]) -> Batch | SkippedBatch:
    """Stack the readable samples of a batch; the others are reported in ``skipped``."""
    skipped = tuple(text for sample in samples for text in sample.skipped)
    read = [sample for sample in samples if isinstance(sample, Sample)]
    if not read:
        return SkippedBatch(skipped)
    # not every file lists vehicles
    if any(sample.target.moving is None for sample in read):
        read = [replace(sample, target=replace(sample.target, moving=None)) for sample in read]
    if any(sample.target.own_body is None for sample in read):
        read = [replace(sample, target=replace(sample.target, own_body=None)) for sample in read]
    batch = Batch.collate(read)
    return Batch(batch.observation, batch.target, batch.metas, skipped)
