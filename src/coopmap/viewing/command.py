"""From what a view is asked for to a running viewer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

from coopmap.config import ConfigError
from coopmap.config.view import ViewConfig
from coopmap.data.surroundings import read_surroundings
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.subject import open_subject
from coopmap.models.placement import as_matched
from coopmap.rendering.command import predict, read_sample
from coopmap.training.scenes import scene_of
from coopmap.viewing.viewer import FrameViewer
from coopmap.viz.scene import Scene

KEPT_FRAMES = 8
"""Frames that are not predicted anew when they are asked for again."""


def is_available() -> bool:
    """Whether viser is installed."""
    return find_spec("viser") is not None


def start(asked: ViewConfig, overrides: Sequence[str] = ()) -> FrameViewer:
    """Open the model and the split, and serve the first frame.

    Raises:
        ConfigError: viser is not installed, or something requested does not exist or does not fit.
    """
    if not is_available():
        raise ConfigError("coopmap view: not installed: pip install coopmap[view]")
    subject = open_subject(asked, overrides)
    data = EvaluationData(subject.config, asked.split)
    data.prepare_data()
    dataset = data.dataset(asked.split)
    if not 0 <= asked.index < len(dataset):
        raise ConfigError(f"index={asked.index}: split {asked.split} has samples 0 to {len(dataset) - 1}")

    @lru_cache(maxsize=KEPT_FRAMES)
    def load(position: int) -> Scene:
        sample = read_sample(dataset, position)
        around = read_surroundings(dataset.index, sample.meta, with_sweeps=True)
        prediction, batch = predict(subject, sample, position)
        placed = as_matched(subject.module.model, prediction, batch.observation)
        return scene_of(placed, batch.observation, batch.target, sample.meta, around=around)

    return FrameViewer(load, len(dataset), asked.index, asked.points, asked.port)
