"""The points of a scene: placed, colored, thinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from coopmap.viz.scene import Scene, SceneView

SMALLEST_VOXEL_M = 0.02
VOXEL_GROWTH = 1.25


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of a view, in its frame.

    Attributes:
        view: number of the view.
        points: in the frame of the view.
        colors: of the image, RGB.
        error: predicted minus true range, NaN where unknown; ``None`` of true points.
        confidence: likewise.
    """

    view: int
    points: Float32[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    error: Float32[np.ndarray, " n"] | None = None
    confidence: Float32[np.ndarray, " n"] | None = None

    def __getitem__(self, chosen: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Cloud:
        """Some of the points."""
        error, confidence = (None if each is None else each[chosen] for each in (self.error, self.confidence))
        return Cloud(self.view, self.points[chosen], self.colors[chosen], error, confidence)


def predicted_clouds(scene: Scene) -> list[Cloud]:
    """The predicted points of every view that are kept."""
    return [_predicted(number, view) for number, view in enumerate(scene.views)]


def _predicted(number: int, view: SceneView) -> Cloud:
    kept = view.kept & np.isfinite(view.depth) & np.isfinite(view.rays).all(axis=-1)
    error = view.error
    return Cloud(
        number,
        view.rays[kept] * view.depth[kept][:, None],
        view.image[kept],
        None if error is None else error[kept],
        None if view.confidence is None else view.confidence[kept],
    )


def true_clouds(scene: Scene) -> list[Cloud]:
    """The true points of every view that has any."""
    clouds = []
    for number, view in enumerate(scene.views):
        if view.true_depth is None or view.true_rays is None:
            continue
        known = view.true_depth > 0
        clouds.append(Cloud(number, view.true_rays[known] * view.true_depth[known][:, None], view.image[known]))
    return clouds


def thinned(clouds: Sequence[Cloud], limit: int) -> tuple[list[Cloud], float]:
    """At most ``limit`` points of all clouds: one per voxel of each cloud, the same voxels for all.

    Returns:
        The clouds, and the side of the voxels in meters; 0 if no point was left out.
    """
    if sum(len(cloud.points) for cloud in clouds) <= limit:
        return list(clouds), 0.0
    voxel = SMALLEST_VOXEL_M
    while True:
        thinner = [cloud[one_per_voxel(cloud.points, voxel)] for cloud in clouds]
        total = sum(len(cloud.points) for cloud in thinner)
        if total <= limit:
            return thinner, voxel
        # On a surface, the number of voxels falls with the square of their side, and sparse points fall more slowly.
        voxel *= max(VOXEL_GROWTH, (total / limit) ** 0.5)
        clouds = thinner


def one_per_voxel(points: Float32[np.ndarray, "n 3"], voxel: float) -> Int[np.ndarray, " m"]:
    """The first point of every voxel, in order."""
    cells = np.floor(points / np.float32(voxel)).astype(np.int64)
    cells -= cells.min(axis=0, initial=0)
    spans = cells.max(axis=0, initial=0) + 1
    keys = (cells[:, 0] * spans[1] + cells[:, 1]) * spans[2] + cells[:, 2]
    return np.sort(np.unique(keys, return_index=True)[1])


def placed(scene: Scene, clouds: Sequence[Cloud], source: str) -> Float32[np.ndarray, "n 3"]:
    """Points of all clouds in the frame of the scene, by poses of a source."""
    parts = []
    for cloud in clouds:
        pose = scene.views[cloud.view].pose[source]
        parts.append((cloud.points @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, 3), np.float32)
