"""A result in the formats of other tools (``coopmap infer export=[...]``).

Of a frame, poses are those of the agents in the scenario's world: the *true* pose of the first agent times what was
predicted relative to it. Of a folder of images, they are those of the views in the frame of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from coopmap.config import ConfigError
from coopmap.data.opv2v import read_agent
from coopmap.data.opv2v.images import is_turned
from coopmap.formats.colmap import PosedImage, write_colmap
from coopmap.formats.pose_cache import PosedFrame, write_pose_cache
from coopmap.formats.rig import images_of_rig
from coopmap.formats.trajectories import write_kitti, write_tum
from coopmap.geometry.calibration import PinholeCalibration
from coopmap.geometry.se3 import invert, relative_pose
from coopmap.inference.inputs import Views, image_sizes
from coopmap.inference.outputs import thin_out
from coopmap.inference.runner import Inference
from coopmap.inference.source import FrameSource
from coopmap.metrics import agent_poses

log = logging.getLogger(__name__)

OF_VIEWS = (
    "poses: T_view0_view, OpenCV axes (x right, y down, z forward), meters; the time is the number of the view",
)
OF_AGENTS = (
    "world: the scenario's, in OpenCV axes (x right, y down, z forward; z, x, -y of these are CARLA's x, y, z), meters",
    "poses: T_world_agent of the agents' LiDARs at one instant, the time is the number of the agent: the true world "
    "pose of agent 0 (the reference) times the predicted pose relative to it",
)


def check_exports(asked: Sequence[str], views: Views, images: str | None = None) -> None:
    """Before the model runs: whether the views, of a folder of ``images`` if not of a frame, have what formats need.

    Raises:
        ConfigError: they do not.
    """
    if "colmap" not in asked or images is None:
        return
    spaced = next((name for name in views.names if len(name.split()) > 1), None)
    if spaced is not None:
        raise ConfigError(
            f"export=[colmap]: '{spaced}' has white space, which the format ends a name at; rename the file"
        )
    turned = next((name for name in views.names if is_turned(Path(images).expanduser() / name)), None)
    if turned is not None:
        raise ConfigError(
            f"export=[colmap]: {turned} is stored turned, as its EXIF orientation says, and COLMAP takes pixels as "
            "they are stored; write the files upright, for instance with ImageMagick: mogrify -auto-orient *.jpg"
        )


def write_exports(
    folder: Path, views: Views, result: Inference, asked: Sequence[str], images: str | None = None, max_points: int = 0
) -> list[Path]:
    """Write the formats that were asked for, each into its own folder below ``folder``.

    Args:
        folder: of the other files.
        views: what went into the model.
        result: what came out.
        asked: choices of :data:`~coopmap.config.formats.EXPORTS`.
        images: the folder of images that the views were read from.
        max_points: of a COLMAP model.

    Returns:
        The files.
    """
    posed = None if views.source is None else posed_frame(views.source, result)
    names, notes = (views.names, OF_VIEWS) if posed is None else (posed.agents, OF_AGENTS)
    found = {"": result.pose.double().numpy() if posed is None else posed.pose}
    if posed is not None:
        found["_true"] = posed.true_pose
    files: list[Path] = []
    for name in dict.fromkeys(asked):
        place = folder / name
        if name == "heal":
            assert posed is not None
            assert views.source is not None
            files.append(place / f"{views.source.split_folder.name}.json")
            write_pose_cache(files[-1], [posed], views.source.split_folder)
        elif name == "colmap":
            world = np.eye(4) if posed is None else _world_from_view0(views.source, posed, result)
            cameras = _of_files(views, result, images) if posed is None else _of_rigs(views.source, posed)
            files += write_colmap(place, cameras, *_points(views, result, world, max_points), notes=notes)
        for suffix, pose in found.items() if name in ("tum", "kitti") else ():
            files.append(place / f"poses{suffix}.txt")
            title = f"{'true' if suffix else 'predicted'} poses of {', '.join(names)}; {views.title}"
            if name == "tum":
                write_tum(files[-1], np.arange(len(pose), dtype=float), pose, [title, *notes])
            else:
                write_kitti(files[-1], pose)
    return files


def posed_frame(source: FrameSource, result: Inference) -> PosedFrame:
    """The agents of a frame in the world."""
    target = source.target.map(lambda tensor: tensor[None])
    of_agents, true = (agent_poses(pose, target)[0].double() for pose in (result.pose[None], target.pose))
    true[:, :3, 3] += true.new_tensor(source.origin)
    pose = true[0] @ relative_pose(of_agents[:1], of_agents)
    confidence: list[float | None] = [1.0, *[None] * (len(pose) - 1)]
    if (matches := result.prediction.matches) is not None:  # pairs 01, 02, ... come first
        confidence[1:] = torch.sigmoid(matches.confidence_logit[0, : len(pose) - 1]).tolist()
    ref = source.ref
    return PosedFrame(ref.scenario, ref.frame, ref.agents, pose.numpy(), true.numpy(), tuple(confidence))


def _world_from_view0(source: FrameSource | None, posed: PosedFrame, result: Inference) -> Float[np.ndarray, "4 4"]:
    """The frame of the points in the world; view 0 may be a camera of the first agent."""
    assert source is not None
    view0_from_agent0 = agent_poses(result.pose[None], source.target.map(lambda tensor: tensor[None]))[0, 0]
    return posed.pose[0] @ invert(view0_from_agent0).numpy()


def _of_rigs(source: FrameSource | None, posed: PosedFrame) -> list[PosedImage]:
    """The cameras of all agents, whatever the views."""
    assert source is not None
    images = []
    for agent, pose in zip(posed.agents, posed.pose, strict=True):
        rig = read_agent(source.index.yaml_path(source.ref, agent), with_vehicles=False).rig
        images += images_of_rig(rig, pose, source.index.image_names(source.ref, agent))
    return images


def _of_files(views: Views, result: Inference, folder: str | None) -> list[PosedImage]:
    """The images of a folder, with the parameters that were recovered from the rays."""
    camera = result.camera
    assert isinstance(camera, PinholeCalibration)
    assert views.source_from_view is not None
    assert folder is not None
    images = []
    intrinsics = views.source_from_view @ camera.intrinsics
    for i, (name, size) in enumerate(zip(views.names, image_sizes(folder, views.names), strict=True)):
        if np.isfinite(intrinsics[i]).all():
            images.append(PosedImage(name, intrinsics[i], size, result.pose[i].double().numpy()))
        else:
            log.warning("export=[colmap] leaves out %s: no pinhole camera fits its rays", name)
    return images


def _points(
    views: Views, result: Inference, world: Float[np.ndarray, "4 4"], limit: int
) -> tuple[Float[np.ndarray, "n 3"], np.ndarray]:
    kept = thin_out(np.flatnonzero(result.mask.numpy()), limit)
    points = result.points_world.numpy().reshape(-1, 3)[kept].astype(np.float64)
    return points @ world[:3, :3].T + world[:3, 3], views.images.reshape(-1, 3)[kept]
