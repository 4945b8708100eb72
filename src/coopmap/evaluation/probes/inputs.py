"""Probes that change what the model is given of all agents but the reference agent, and ask again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from coopmap.evaluation.probes.columns import Columns, by_sample, errors_of, expected_of, with_reference
from coopmap.geometry import invert, rotate
from coopmap.geometry.poses import rotation_about_y
from coopmap.metrics import agent_poses, pair_errors, predicted_pose
from coopmap.types import Batch, Observation, Prediction, Sample, SampleMeta

Model = Callable[[Observation], Prediction]


class OtherStreet:
    """The other agents get the images of agents of another scenario.

    Args:
        model: that matches.
        elsewhere: a sample of another scenario with at least as many agents; none where there is none.
    """

    def __init__(self, model: Model, elsewhere: Callable[[SampleMeta], Sample | None]) -> None:
        self.model, self.elsewhere = model, elsewhere

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Confidence and expected co-visibility of pairs with the reference agent; none without a partner."""
        images, views = observation.images.clone(), _agents_and_views(batch)[1]
        partners = [self.elsewhere(meta) for meta in batch.metas]
        for row, partner in enumerate(partners):
            if partner is not None:
                images[row, views:] = partner.observation.images[views : images.shape[1]].to(images)
        matches = self.model(replace(observation, images=images)).matches if any(partners) else None
        if matches is None:
            return [{} for _ in partners]
        found = by_sample("other_street", with_reference(expected_of(matches), matches.unmatched.shape[1]))
        return [columns if partner else {} for columns, partner in zip(found, partners, strict=True)]


class Alone:
    """The images of the other agents are blank, as if no camera covered anything, and their priors are withheld.

    Args:
        model: to ask.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Errors of pairs with the reference agent, and what the model expects of them."""
        agents, views = _agents_and_views(batch)
        if agents < 2:
            return [{} for _ in batch.metas]
        images = observation.images.clone()
        images[:, views:] = 0  # the mean color, which uncovered pixels have
        own = torch.arange(images.shape[1], device=images.device) < views
        blank = replace(
            observation,
            images=images,
            depth_given=_both(observation.depth_given, own, len(images)),
            pose_given=_both(observation.pose_given, own, len(images)),
        )
        answer = self.model(blank)
        found = errors_of(predicted_pose(answer), batch.target) | expected_of(answer.matches)
        return by_sample("alone", with_reference(found, agents))


def _both(given: Bool[Tensor, "b v"] | None, own: Bool[Tensor, " v"], batch: int) -> Bool[Tensor, "b v"]:
    return own.expand(batch, -1) if given is None else given & own


class Seam:
    """The panoramas of the other agents are turned by half a turn, to whole cells, and so are their poses.

    Their seam, the borders between cameras and the blind wedges then lie elsewhere in the image.

    Args:
        model: of panoramas.
        patch_size: side of a cell in pixels.
    """

    def __init__(self, model: Model, patch_size: int) -> None:
        self.model, self.patch_size = model, patch_size

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Errors of all pairs after the turn is undone, how far the answer moved, and what the model expects."""
        agents, views = _agents_and_views(batch)
        if agents < 2:
            return [{} for _ in batch.metas]
        shift = observation.rays.shape[3] // self.patch_size // 2 * self.patch_size
        answer = self.model(turned(observation, views, shift, self.patch_size))
        pose = predicted_pose(answer).double()
        pose[:, views:] = pose[:, views:] @ invert(_turn(observation, shift))
        moved = pair_errors(*(agent_poses(each, batch.target) for each in (pose, predicted_pose(prediction))))
        found = errors_of(pose, batch.target) | expected_of(answer.matches)
        return by_sample("seam", found | {"change_m": moved["trans_m"], "change_deg": moved["rot_deg"]})


def turned(observation: Observation, first: int, shift: int, patch_size: int) -> Observation:
    """The observation with some views' frames turned to the right, as the augmentation ``yaw_roll`` does.

    Args:
        observation: of panoramas, or of cameras that are fused into them.
        first: view from which on all are turned.
        shift: column that becomes column 0; whole cells.
        patch_size: side of a cell in pixels.
    """
    turn = _turn(observation, shift)
    is_grouped = observation.camera_grid is not None  # camera images as they are, places in them per cell
    cells = shift // patch_size

    def rolled(values: Shaped[Tensor, "b v *c"] | None, columns: int, dim: int) -> Shaped[Tensor, "b v *c"] | None:
        return None if values is None else torch.cat([values[:, :first], values[:, first:].roll(-columns, dim)], dim=1)

    def after(values: Float[Tensor, "b v *k"], change: Float[Tensor, "b v *k"]) -> Float[Tensor, "b v *k"]:
        return torch.cat([values[:, :first], change[:, first:]], dim=1)

    camera_pose, pose_prior, gravity = observation.camera_pose, observation.pose_prior, observation.gravity
    images = observation.images if is_grouped else rolled(observation.images, shift, -1)
    assert images is not None
    return replace(
        observation,
        images=images,
        depth_prior=rolled(observation.depth_prior, shift, -1),
        camera_angle=rolled(observation.camera_angle, cells if is_grouped else shift, -1),
        camera_grid=rolled(observation.camera_grid, cells, -2),
        camera_pose=None if camera_pose is None else after(camera_pose, invert(turn).to(camera_pose) @ camera_pose),
        pose_prior=None if pose_prior is None else after(pose_prior, pose_prior @ turn.to(pose_prior)),
        gravity=None if gravity is None else after(gravity, rotate(invert(turn).to(gravity), gravity)),
    )


def _turn(observation: Observation, shift: int) -> Float[Tensor, "4 4"]:
    """``T_view_turned``, double precision."""
    turn = rotation_about_y(2 * np.pi * shift / observation.rays.shape[3])
    return torch.from_numpy(turn).to(observation.rays.device)


def _agents_and_views(batch: Batch) -> tuple[int, int]:
    """Number of agents, and of the views of each."""
    names = batch.metas[0].agents
    agents = len(dict.fromkeys(names))
    return agents, len(names) // agents
