"""The data that samples are measured on: what the overrides name, or a town rendered for the purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from coopmap.config import load_config
from coopmap.config.data import DataConfig
from coopmap.config.synth import LidarConfig, ScenarioCounts, tiny_town
from coopmap.data.opv2v import read_image

AGENTS = 2
"""In a sample."""
FULL_SIZE = ("data.panorama.height=252", "data.panorama.width=1008", "data.keep_in_memory=false")
NOISE_LEVELS = 2


@contextmanager
def render_or_find(overrides: Sequence[str]) -> Iterator[tuple[DataConfig, str]]:
    """Configuration, and in words what data it names."""
    agents = [f"data.min_agents={AGENTS}", f"data.max_agents={AGENTS}", f"data.max_views_per_gpu={4 * AGENTS}"]
    if any(override.startswith("data.root=") for override in overrides):
        config = load_config([*FULL_SIZE, *agents, *overrides]).data
        yield config, config.root
        return
    from coopmap.synthetic import render_town

    with tempfile.TemporaryDirectory(prefix="coopmap-bench-") as folder:
        town = tiny_town(
            f"{folder}/data",
            f"{folder}/depth",
            image_scale=1.0,
            frames=1,
            agents_min=AGENTS,
            agents_max=AGENTS,
            scenarios=ScenarioCounts(train=1, validate=1, test=0),
            lidar=LidarConfig(beams=64, azimuth_steps=900),
        )
        render_town(town)
        _add_sensor_noise(Path(town.root))
        places = [f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.communication_range_m=1000"]
        yield load_config([*FULL_SIZE, *agents, *places, *overrides]).data, "a town rendered at 800 x 600"


def _add_sensor_noise(root: Path) -> None:
    """Rendered images are smooth; with noise they are as large, and take as long to decode, as recorded ones."""
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("*_camera?.png")):
        image = read_image(path).astype(np.int16)
        noisy = image + rng.integers(-NOISE_LEVELS, NOISE_LEVELS + 1, image.shape[:2])[..., None]
        cv2.imwrite(str(path), np.clip(noisy, 0, 255).astype(np.uint8)[..., ::-1])
