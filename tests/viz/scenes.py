"""A scene whose numbers are known: two agents on a road, walls around, a box, GPS, LiDAR."""

from __future__ import annotations

from typing import Any

import numpy as np

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.viz.scene import Scene, SceneAgent, SceneBoxes, SceneView

HEIGHT, WIDTH = 28, 112
AWAY_M, ERROR_M = 20.0, 2.0
"""Of the second agent: how far ahead it is, and by how much its predicted position is off to the right."""
TOO_FAR_M = 0.75
"""Of all ranges."""


def pose(right: float = 0.0, ahead: float = 0.0) -> np.ndarray:
    moved = np.eye(4)
    moved[[0, 2], 3] = right, ahead
    return moved


def view(agent: int, poses: dict[str, np.ndarray], **changes: Any) -> SceneView:
    """Walls at 8 m, the left half red and the right half blue; truth is unknown in the topmost row."""
    rays = camera_rays(PanoramaCamera(HEIGHT, WIDTH, np.deg2rad(90))).astype(np.float32)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2, 0] = image[:, WIDTH // 2 :, 2] = 200
    true = np.full((HEIGHT, WIDTH), 8.0, np.float32)
    true[0] = 0
    kept = np.ones((HEIGHT, WIDTH), bool)
    kept[-1] = False
    known: dict[str, Any] = {"agent": agent, "name": "", "pose": poses, "image": image, "rays": rays, "kept": kept}
    known |= {"depth": np.full((HEIGHT, WIDTH), 8 + TOO_FAR_M, np.float32), "mask": kept, "true_depth": true}
    known |= {"true_rays": rays, "confidence": np.linspace(1, 3, kept.size, dtype=np.float32).reshape(kept.shape)}
    return SceneView(**(known | {"covered": np.ones_like(kept)} | changes))


def scene(names: tuple[str, str] = ("641", "650"), title: str = "drive / 000069", **changes: Any) -> Scene:
    first = {"pred": pose(), "gt": pose(), "gps": pose()}
    second = {"pred": pose(ERROR_M, AWAY_M), "gt": pose(0, AWAY_M), "gps": pose(-1, AWAY_M)}
    frusta = np.array([[[0, 0, 0], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]], float)
    sweep = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 5
    agents = [SceneAgent(name, poses, frusta, sweep) for name, poses in zip(names, (first, second), strict=True)]
    boxes = SceneBoxes(pose(3, 10)[None], np.array([[1.0, 0.8, 2.0]]), ["7"])
    views = [view(0, first), view(1, second)]
    return Scene(title, agents, **({"views": views, "boxes": boxes} | changes))
