"""From views to agents: the same for panoramas, four cameras per agent in the 4n baseline.

Several views of an agent are either its cameras, tied together by ``Target.rig_pose``, or (without) its panorama or
mosaic of the sample's tick followed by those of neighboring ticks; then the first stands for the agent.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from coopmap.geometry import invert, nearest_rotation, relative_pose, transform_points
from coopmap.geometry.rig import SLOTS, SLOTS_BY_AZIMUTH
from coopmap.types.records import Observation, Target


def views_per_agent(target: Target) -> int:
    """How many views each agent has; those of one agent follow one another.

    Records of a dataset know it. Of others the agents' numbers are looked at, which waits for the device.

    Raises:
        ValueError: if the agents of a batch have different numbers of views.
    """
    if target.views_per_agent is not None:
        return target.views_per_agent
    if target.agent is None:
        return 1
    views = target.agent.shape[1]
    each = views // (int(target.agent.max()) + 1)
    expected = torch.arange(views, device=target.agent.device) // max(each, 1)
    if not torch.equal(target.agent, expected.expand_as(target.agent)):
        raise ValueError(f"expected the same number of views for every agent, agent after agent: {target.agent}")
    return each


def columns_around(target: Target) -> int:
    """Columns of pixels all around an agent: of its cameras together, or of the one view that stands for it."""
    cameras = 1 if target.rig_pose is None else views_per_agent(target)
    return cameras * target.depth.shape[-1]


def camera_centers_by_azimuth(camera_pose: Float[Tensor, "b v k 4 4"]) -> Float[Tensor, "b v k 3"]:
    """Centers of an agent's cameras, in the order in which a mosaic shows them."""
    # A list as an index would be copied to the GPU, for which the host waits.
    return torch.stack([camera_pose[:, :, slot, :3, 3] for slot in SLOTS_BY_AZIMUTH], dim=2)


def cameras_per_agent(observation: Observation) -> int:
    """How many views of an observation are the cameras of one agent; they follow one another.

    The model, which is not told of ticks, takes views of neighboring ticks for agents of their own; results are brought
    together by :func:`views_per_agent`.
    """
    return len(SLOTS) if observation.slot is not None else 1


def agent_poses(pose: Float[Tensor, "b v 4 4"], target: Target) -> Float[Tensor, "b n 4 4"]:
    """Poses of the agents in double precision, from poses of their views in any frame common to a sample.

    Each view gives a pose of its agent through the rig's calibration; these are averaged: translations by their mean,
    rotations by the one nearest to the mean matrix, NaN where they cancel. Where views are agents, the poses are
    returned unchanged; those of neighboring ticks are left out.
    """
    pose = at_the_tick(pose.detach().double(), target)
    if target.rig_pose is None:
        return pose
    each = views_per_agent(target)
    pose = _through_rig(pose, target.rig_pose)
    if each == 1:
        return pose
    batch, views = pose.shape[:2]
    mean = pose.view(batch, views // each, each, 4, 4).mean(dim=2)
    mean[..., :3, :3] = nearest_rotation(mean[..., :3, :3])
    return mean


def true_agent_poses(target: Target) -> Float[Tensor, "b n 4 4"]:
    """True poses of the agents in view 0's frame, double precision.

    Those that their first views give: others give the same, and averaging would wait for the device.
    """
    pose = relative_pose(target.pose[:, :1].double(), target.pose.double())
    return _through_rig(pose, target.rig_pose)[:, :: views_per_agent(target)]


def _through_rig(pose: Float[Tensor, "b v 4 4"], rig_pose: Float[Tensor, "b v 4 4"] | None) -> Float[Tensor, "b v 4 4"]:
    """Poses of the agents that poses of their views give."""
    return pose if rig_pose is None else pose @ invert(rig_pose.double())


def at_the_tick(values: Shaped[Tensor, "b v *rest"], target: Target) -> Shaped[Tensor, "b w *rest"]:
    """What belongs to views of the sample's own tick: all, unless agents have views of neighboring ticks."""
    return values if target.rig_pose is not None else values[:, :: views_per_agent(target)]


def without_neighboring_ticks(target: Target) -> Target:
    """The views of the sample's own tick alone; unchanged where there are no others."""
    if target.rig_pose is not None or views_per_agent(target) == 1:
        return target
    own = target.map(lambda values: at_the_tick(values, target) if values.ndim > 1 else values)
    return replace(own, agent=None, views_per_agent=1)


def in_agent_frame(points: Float[Tensor, "b v n 3"], target: Target) -> Float[Tensor, "b v n 3"]:
    """Points of the views' frames in those of their agents."""
    return points if target.rig_pose is None else transform_points(target.rig_pose.to(points), points)


def in_reference_agent(points: Float[Tensor, "b v h w 3"], target: Target) -> Float[Tensor, "b v h w 3"]:
    """Points of view 0's frame in that of its agent."""
    if target.rig_pose is None:
        return points
    return transform_points(target.rig_pose[:, :1], points.flatten(2, 3)).view_as(points)


def patch_side(target: Target, num_cells: int) -> int:
    """Side of a cell in pixels, if an agent has ``num_cells``."""
    height, width = target.depth.shape[-2:]
    return round((views_per_agent(target) * height * width / num_cells) ** 0.5)
