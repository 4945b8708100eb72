"""What a full-size rendering takes: time, memory, and room on the page."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.rendering.outputs import write_files
from coopmap.viz.scene import Scene, SceneAgent, SceneView
from coopmap.viz.scene_page import write_scene

HEIGHT, WIDTH, AGENTS = 252, 1008, 4


def noisy_scene() -> Scene:
    """Every pixel has a color and a range of its own, which compress worse than any prediction does."""
    rng = np.random.default_rng(0)
    rays = camera_rays(PanoramaCamera(HEIGHT, WIDTH, np.deg2rad(90))).astype(np.float32)
    agents, views, everywhere = [], [], np.ones((HEIGHT, WIDTH), bool)
    for number in range(AGENTS):
        pose = np.eye(4)
        pose[2, 3] = 15.0 * number
        poses = {"pred": pose, "gt": pose}
        smooth = np.kron(rng.uniform(3, 60, (18, 72)), np.ones((14, 14)))
        true = (smooth + rng.normal(0, 0.02, smooth.shape)).astype(np.float32)
        depth = (true * rng.normal(1, 0.02, true.shape)).astype(np.float32)
        image = np.clip(
            np.kron(rng.integers(0, 255, (18, 72, 3)), np.ones((14, 14, 1))) + rng.normal(0, 6, true.shape)[..., None],
            0,
            255,
        )
        known = {"mask": everywhere, "confidence": depth, "true_rays": rays, "true_depth": true, "covered": everywhere}
        agents.append(SceneAgent(str(number), poses))
        views.append(SceneView(number, "", poses, image.astype(np.uint8), rays, depth, everywhere, **known))
    return Scene("full size", agents, views)


@pytest.mark.slow
def test_four_agents_of_250_000_points(tmp_path: Path) -> None:
    scene = noisy_scene()
    assert sum(int(view.kept.sum()) for view in scene.views) > 1_000_000
    started = time.process_time()
    write_files(tmp_path, scene, {}, "pred", None)
    write_scene(tmp_path / "pointcloud.html", scene)
    assert time.process_time() - started < 10
    assert (tmp_path / "pointcloud.html").stat().st_size < 15e6
    tracemalloc.start()
    write_scene(tmp_path / "again.html", scene)
    assert tracemalloc.get_traced_memory()[1] < 1e9
    tracemalloc.stop()
