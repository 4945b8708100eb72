"""From a prediction to the scene that pages and pictures show."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from coopmap.data.normalization import pictures_of
from coopmap.data.surroundings import Surroundings
from coopmap.geometry.edges import flying_pixels
from coopmap.geometry.rig import SLOTS, Rig
from coopmap.geometry.se3_numpy import invert
from coopmap.metrics import agent_poses, predicted_pose
from coopmap.types import Observation, Prediction, SampleMeta, Target
from coopmap.types.agents import views_per_agent
from coopmap.viz.scene import GPS, PRED, TRUE, Scene, SceneAgent, SceneBoxes, SceneView

Record = TypeVar("Record", Prediction, Observation, Target)

LEAST_MASK = 0.05
"""A predicted mask that keeps a smaller share of what cameras see is not applied to the points."""
BOXES_WITHIN_M = 120.0


@torch.no_grad()
def scene_of(
    prediction: Prediction,
    observation: Observation,
    target: Target,
    meta: SampleMeta,
    row: int = 0,
    around: Surroundings | None = None,
) -> Scene:
    """A sample of a batch as a scene; poses are relative to the reference agent, predicted ones as predicted.

    Args:
        prediction: of a batch.
        observation: likewise.
        target: likewise.
        meta: of the sample.
        row: of the sample in the batch.
        around: what files say about it, if they were read.
    """
    prediction, observation, target = (one_row(prediction, row), one_row(observation, row), one_row(target, row))
    names = tuple(dict.fromkeys(meta.agents))
    kept, warnings = kept_pixels(prediction, observation, target)
    agents = _agents(prediction, target, names, around)
    views = _views(prediction, observation, target, kept)
    return Scene(f"{meta.scenario} / {meta.frame}", agents, views, _boxes(around), warnings)


def one_row(record: Record, row: int) -> Record:
    """One row, on the CPU in single precision."""

    def plain(values: Tensor) -> Tensor:
        values = values[row : row + 1].detach().cpu()
        return values.float() if values.is_floating_point() else values

    return record.map(plain)


def kept_pixels(
    prediction: Prediction, observation: Observation, target: Target
) -> tuple[Bool[Tensor, "v h w"], list[str]]:
    """Pixels of a single sample whose points are shown, and what is to be said about them.

    What a camera sees and the model does not mask out, without the pixels between two surfaces.
    """
    covered, mask = target.non_ambiguous[0], prediction.mask_logits[0] > 0
    warnings, share = [], float((mask & covered).sum() / covered.sum().clamp(min=1))
    if share < LEAST_MASK:
        mask = torch.ones_like(mask)
        warnings.append(
            f"The model's mask keeps {share:.1%} of what the cameras see; points are shown as if it kept everything."
        )
    shown = mask & covered & (prediction.depth[0] > 0)
    return shown & ~flying_pixels(prediction.rays[0], prediction.depth[0], shown, _camera_model(observation)), warnings


def _camera_model(observation: Observation) -> str:
    if observation.slot is not None:
        return "pinhole"
    is_mosaic = observation.camera_pose is not None and observation.camera_angle is None
    return "mosaic" if is_mosaic else "cyl"


def _agents(
    prediction: Prediction, target: Target, names: tuple[str, ...], around: Surroundings | None
) -> list[SceneAgent]:
    poses = {
        PRED: _relative(agent_poses(predicted_pose(prediction), target)[0].numpy()),
        TRUE: _relative(agent_poses(target.pose, target)[0].numpy()),
    }
    if around is not None:
        poses[GPS] = _relative(around.gps)
    agents = []
    for number, name in enumerate(names):
        known = {source: pose[number] for source, pose in poses.items() if np.isfinite(pose[number]).all()}
        frusta = None if around is None else rig_frusta(around.rigs[number])
        agents.append(SceneAgent(name, known, frusta, None if around is None else around.sweeps[number]))
    return agents


def _relative(pose: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """In the frame of the first."""
    return invert(pose[:1]) @ pose


def rig_frusta(rig: Rig) -> Float[np.ndarray, "k 5 3"]:
    """Apex and image corners at unit depth of an agent's cameras, agent frame."""
    height, width = rig.image_size
    corners = np.array([[0, 0, 1.0], [width, 0, 1], [width, height, 1], [0, height, 1]])
    found = []
    for pose, intrinsics in zip(rig.agent_from_camera, rig.intrinsics, strict=True):
        ends = corners @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T + pose[:3, 3]
        found.append(np.concatenate([pose[None, :3, 3], ends]))
    return np.stack(found)


def _views(
    prediction: Prediction, observation: Observation, target: Target, kept: Bool[Tensor, "v h w"]
) -> list[SceneView]:
    """The views of the sample's own tick."""
    pose_pred, pose_true = predicted_pose(prediction).double(), target.pose.double()
    in_scene = {
        source: (torch.linalg.inv(agent_poses(pose, target)[:, :1]) @ pose)[0].numpy()
        for source, pose in ((PRED, pose_pred), (TRUE, pose_true))
    }
    each = views_per_agent(target)
    own = range(0, len(kept), 1 if target.rig_pose is not None else each)
    views = []
    for number in own:
        slot = observation.slot
        views.append(SceneView(
            agent=number // each,
            name="" if slot is None else SLOTS[int(slot[0, number])],
            pose={source: poses[number] for source, poses in in_scene.items()},
            image=view_image(observation, number),
            rays=prediction.rays[0, number].numpy(),
            depth=prediction.depth[0, number].numpy(),
            kept=kept[number].numpy(),
            mask=(prediction.mask_logits[0, number] > 0).numpy(),
            confidence=prediction.confidence[0, number].numpy(),
            true_rays=target.rays[0, number].numpy(),
            true_depth=torch.where(target.valid[0, number], target.depth[0, number], 0).numpy(),
            covered=target.non_ambiguous[0, number].numpy(),
        ))  # fmt: skip
    return views


def _boxes(around: Surroundings | None) -> SceneBoxes | None:
    if around is None or around.vehicles is None:
        return None
    pose = invert(around.pose[0]) @ around.vehicles.pose
    near = np.linalg.norm(pose[:, :3, 3], axis=1) < BOXES_WITHIN_M
    names = [str(number) for number in around.vehicles.ids[near].tolist()]
    return SceneBoxes(pose[near], around.vehicles.half_extents[near], names)


def view_image(observation: Observation, view: int) -> UInt8[np.ndarray, "h w 3"]:
    """What a view of a single sample shows, on the grid of its rays.

    Of cameras that a model fuses, the one that is nearest to its optical axis shows a pixel.
    """
    images = observation.images[0, view].float()
    if images.ndim == 4:
        images = _composed(images, observation, view)
    return pictures_of(images)


def _composed(images: Float[Tensor, "k 3 h w"], observation: Observation, view: int) -> Float[Tensor, "3 hp wp"]:
    """Camera images put together on the panorama."""
    assert observation.camera_angle is not None
    size = [int(length) for length in observation.rays.shape[2:4]]
    angle = observation.camera_angle[0, view]
    if observation.camera_grid is not None:  # places of patches; between them, they change smoothly
        grid = observation.camera_grid[0, view].permute(0, 3, 1, 2)
        fine = F.interpolate(grid, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        images = F.grid_sample(images, fine, align_corners=False)
        angle = F.interpolate(angle[None], size, mode="nearest")[0]
    nearest = angle.argmin(dim=0)
    shown = images.gather(0, nearest[None, None].expand(1, 3, -1, -1))[0]
    return torch.where(angle.isfinite().any(dim=0), shown, 0.0)
