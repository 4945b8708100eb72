"""Drives: where every moving car of a scenario is at every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coopmap.config.synth import TownConfig
from coopmap.synthetic.cars import MODELS, SEDAN, Car, CarModel, random_paint, vivid
from coopmap.synthetic.scenario import FIRST_DRIVER_ID, PLAN_S, SPLITS, Drive, frame_names, frame_seconds
from coopmap.synthetic.streets import along_lane, lane_length_m
from coopmap.synthetic.town import Town, town_of

_MEETING_RADIUS_M = 26.0
_NEAREST_M, _FARTHEST_M = 6.0, 58.0
_TRIES = 400


@dataclass(frozen=True, eq=False)
class _Driver:
    lane: Float[np.ndarray, "p 2"]
    start_m: float
    speed_mps: float

    def at(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return along_lane(self.lane, self.start_m + self.speed_mps * seconds)


def _random_driver(rng: np.random.Generator, town: Town, duration_s: float) -> _Driver:
    speed = float(rng.uniform(3.0, 11.0))
    lane = town.streets.random_lane(rng, blocks=6)
    return _Driver(lane, float(rng.uniform(0, lane_length_m(lane) - speed * (duration_s + PLAN_S))), speed)


def _footprint(position: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Three disc centers along each car, ``(f, 3, 2)``."""
    forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    return position[:, None] + np.array([-1.6, 0.0, 1.6])[:, None] * forward[:, None]


def _clear(candidate: np.ndarray, others: list[np.ndarray]) -> bool:
    gaps = [np.linalg.norm(candidate[:, :, None] - other[:, None], axis=-1).min() for other in others]
    return all(gap > 2.6 for gap in gaps)


def _draw_drivers(rng: np.random.Generator, cfg: TownConfig, town: Town, count: int) -> list[_Driver] | None:
    """Agents around a meeting place, then traffic anywhere; ``None`` when the agents do not fit."""
    seconds = frame_seconds(cfg)
    chosen: list[_Driver] = []
    prints: list[np.ndarray] = []
    meeting = None
    for _ in range(_TRIES):
        driver = _random_driver(rng, town, seconds[-1])
        position, yaw = driver.at(seconds)
        discs = _footprint(position, yaw)
        middle = position[len(position) // 2]
        if meeting is None:
            meeting = middle
        elif len(chosen) < count:
            between = [np.linalg.norm(discs[:, 1] - other[:, 1], axis=-1) for other in prints]
            fits = all(gap.min() > _NEAREST_M and gap.max() < _FARTHEST_M for gap in between)
            if not fits or np.linalg.norm(middle - meeting) > _MEETING_RADIUS_M:
                continue
        if _clear(discs, prints):
            chosen.append(driver)
            prints.append(discs)
        if len(chosen) == count + cfg.traffic:
            break
    return chosen if len(chosen) >= count else None


def plan_town_drive(cfg: TownConfig, split: str, index: int) -> Drive:
    """Scenario ``index`` of a split; the same for the same configuration.

    Raises:
        RuntimeError: if no room was found for the agents.
    """
    town = town_of(cfg)
    rng = np.random.default_rng([cfg.seed, 1, SPLITS.index(split), index])
    count = int(rng.integers(cfg.agents_min, cfg.agents_max + 1))
    drivers = next((found for _ in range(50) if (found := _draw_drivers(rng, cfg, town, count))), None)
    if drivers is None:
        raise RuntimeError(f"no room for {count} agents in a town of {cfg.size_m} m: raise size_m or lower agents_max")
    ids = np.sort(rng.choice(np.arange(FIRST_DRIVER_ID, FIRST_DRIVER_ID + 300), len(drivers), replace=False))
    agents = tuple(int(number) for number in ids[:count])
    looks: list[tuple[CarModel, tuple[float, float, float]]] = [
        (SEDAN, vivid(place / count + rng.uniform(0, 0.08))) for place in range(count)
    ]
    looks += [(MODELS[rng.integers(len(MODELS))], random_paint(rng)) for _ in drivers[count:]]
    seconds = frame_seconds(cfg)
    tracks = [driver.at(seconds) for driver in drivers]
    poses = [town.terrain.stand(position[:, 0], position[:, 1], yaw) for position, yaw in tracks]
    cars = tuple(
        tuple(
            Car(int(number), *look, pose[frame], driver.speed_mps * 3.6)
            for number, look, pose, driver in zip(ids, looks, poses, drivers, strict=True)
        )
        for frame in range(len(seconds))
    )
    plans = tuple(
        {agent: _plan(driver, second) for agent, driver in zip(agents, drivers[:count], strict=True)}
        for second in seconds
    )
    return Drive(f"{split}_{index:04d}", frame_names(cfg), agents, cars, plans)


def _plan(driver: _Driver, second: float) -> Float[np.ndarray, "p 3"]:
    position, _ = driver.at(second + np.arange(0.2, PLAN_S + 0.01, 0.2))
    return np.concatenate([position, np.full((len(position), 1), driver.speed_mps * 3.6)], axis=1)
