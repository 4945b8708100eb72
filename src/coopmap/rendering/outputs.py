"""The files of a rendering beside its page."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from coopmap.inference.outputs import write_ply
from coopmap.report.files import write_json, write_npy
from coopmap.viz.packing import png
from coopmap.viz.scene import TRUE, Scene
from coopmap.viz.scene_cloud import Cloud, placed, predicted_clouds, thinned
from coopmap.viz.scene_pictures import draw_cloud, draw_panels, error_limit, scene_limits

log = logging.getLogger(__name__)

FILE_POINTS = 2_000_000


def write_files(folder: Path, scene: Scene, summary: dict[str, Any], source: str, sparse: Tensor | None) -> list[Path]:
    """Write ``views/``, ``cloud.ply``, ``cloud.glb`` and ``summary.json``; returns all files.

    Without a point there is no ``cloud.glb``: glTF has no empty cloud.

    Args:
        folder: that exists.
        scene: to write.
        summary: content of ``summary.json``.
        source: of the poses that place points.
        sparse: ranges of LiDAR points per view, 0 = none.
    """
    clouds, _ = thinned(predicted_clouds(scene), FILE_POINTS)
    files = _write_views(folder / "views", scene, clouds, source, sparse)
    files += _write_clouds(folder, scene, clouds, source)
    write_json(summary, folder / "summary.json")
    return [*files, folder / "summary.json"]


def _write_views(folder: Path, scene: Scene, clouds: list[Cloud], source: str, sparse: Tensor | None) -> list[Path]:
    folder.mkdir(exist_ok=True)
    limits, limit = scene_limits(scene), error_limit(scene)
    files = []
    for number, (view, cloud) in enumerate(zip(scene.views, clouds, strict=True)):
        stem = file_stem(scene, number)
        pictures = draw_panels(view, limits, limit)
        pictures["cloud"] = draw_cloud(scene, [cloud], source, view.agent)
        for what, picture in pictures.items():
            files.append(folder / f"{stem}_{what}.png")
            files[-1].write_bytes(png(picture, effort=3))
        arrays = {"depth": view.depth, "pose": view.pose[source]}
        arrays |= {f"pose_{name}": pose for name, pose in view.pose.items()}
        if view.true_depth is not None:
            arrays["depth_true"] = view.true_depth
        if sparse is not None:
            arrays["depth_sparse"] = sparse[number].numpy()
        for what, values in arrays.items():
            files.append(folder / f"{stem}_{what}.npy")
            write_npy(values, files[-1])
    return files


def file_stem(scene: Scene, number: int) -> str:
    """Start of the file names of a view: agent, and camera where views are cameras."""
    view = scene.views[number]
    return "_".join(filter(None, [re.sub(r"[^\w.-]", "-", scene.agents[view.agent].name), view.name]))


def _write_clouds(folder: Path, scene: Scene, clouds: list[Cloud], source: str) -> list[Path]:
    """For other viewers: PLY in OpenCV axes, glTF with the axes that its viewers expect, y up."""
    import trimesh

    points = placed(scene, clouds, source)
    colors = np.concatenate([cloud.colors for cloud in clouds])
    agent = np.concatenate([np.full(len(cloud.points), scene.views[cloud.view].agent, np.uint8) for cloud in clouds])
    known = np.isfinite(points).all(axis=1)  # no glTF has others; a predicted pose may be no number
    points, colors, agent = points[known], colors[known], agent[known]
    poses = "true" if source == TRUE else "predicted"
    comment = f"points in the frame of agent {scene.agents[0].name}, {poses} poses, meters, x right, y down, z ahead"
    ply, gltf = folder / "cloud.ply", folder / "cloud.glb"
    write_ply(ply, points, colors, agent, comment)
    if not len(points):
        log.warning("no point is kept: cloud.ply is empty, and there is no cloud.glb")
        return [ply]
    upright = points * np.array([1, -1, -1], np.float32)
    opaque = np.column_stack([colors, np.full(len(colors), 255, np.uint8)])
    gltf.write_bytes(trimesh.Scene(trimesh.PointCloud(upright, colors=opaque)).export(file_type="glb"))
    return [ply, gltf]
