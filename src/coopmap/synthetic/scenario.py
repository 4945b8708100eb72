"""A scenario: which cars are where at every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coopmap.config.synth import TownConfig
from coopmap.synthetic.cars import Car

SPLITS = ("train", "validate", "test")
TICK_S = 0.05
PLAN_S = 3.0
"""How far ahead ``plan_trajectory`` looks."""

FIRST_DRIVER_ID = 600
"""Ids below belong to parked cars."""

_FIRST_TICK = 60


@dataclass(frozen=True, eq=False)
class Drive:
    """A scenario.

    Attributes:
        name: folder name.
        frames: names of the frames (ticks of 0.05 s).
        agents: ids of the connected vehicles, ascending.
        cars: all moving cars, agents among them, per frame.
        plans: per frame and agent id, the next positions and speeds ``(x, y, km/h)``.
    """

    name: str
    frames: tuple[str, ...]
    agents: tuple[int, ...]
    cars: tuple[tuple[Car, ...], ...]
    plans: tuple[dict[int, Float[np.ndarray, "p 3"]], ...]


def scenario_index(name: str) -> int:
    """Number within its split of the scenario with a folder name."""
    return int(name.rsplit("_", 1)[1])


def street_name(split: str, index: int) -> str:
    """Folder name of a scenario on a street of its own."""
    return f"{split}_{index:05d}"


def frame_seconds(cfg: TownConfig) -> Float[np.ndarray, " f"]:
    """Moments of the frames."""
    return np.arange(cfg.num_frames) * cfg.frame_interval_s


def frame_names(cfg: TownConfig) -> tuple[str, ...]:
    """Names of the frames: ticks since the simulation began."""
    step = round(cfg.frame_interval_s / TICK_S)
    return tuple(f"{_FIRST_TICK + step * frame:06d}" for frame in range(cfg.num_frames))
