"""Drives on a street: where every moving car is at every frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.config.synth import TownConfig
from coopmap.synthetic.cars import MODELS, Car, random_paint
from coopmap.synthetic.scenario import FIRST_DRIVER_ID, PLAN_S, SPLITS, Drive, frame_names, frame_seconds, street_name
from coopmap.synthetic.street.meeting import Track, draw_agents, draw_traffic
from coopmap.synthetic.street.styles import STYLES
from coopmap.synthetic.street.world import street_of


def plan_street_drive(cfg: TownConfig, split: str, index: int) -> Drive:
    """The drive of scenario ``index`` of a split, on the street of its own; the same for the same configuration."""
    street = street_of(cfg, split, index)
    rng = np.random.default_rng([cfg.seed, 4, SPLITS.index(split), index])
    count = int(rng.integers(cfg.agents_min, cfg.agents_max + 1))
    seconds = frame_seconds(cfg)
    agents = draw_agents(rng, street.roads, count, str(cfg.traffic), cfg.farthest_m, seconds)
    fewest, most = STYLES[street.style].traffic
    others = draw_traffic(rng, street.roads, agents, int(rng.integers(fewest, most + 1)), seconds)
    tracks = [*agents, *others]
    ids = np.sort(rng.choice(np.arange(FIRST_DRIVER_ID, FIRST_DRIVER_ID + 300), len(tracks), replace=False)).tolist()
    looks = [(MODELS[rng.integers(len(MODELS))], random_paint(rng)) for _ in tracks]
    paths = [track.at(seconds) for track in tracks]
    poses = [street.terrain.stand(xy[:, 0], xy[:, 1], yaw) for xy, yaw in paths]
    cars = tuple(
        tuple(
            Car(number, *look, pose[frame], track.speed_mps * 3.6)
            for number, look, pose, track in zip(ids, looks, poses, tracks, strict=True)
        )
        for frame in range(len(seconds))
    )
    plans = tuple(
        {number: _plan(track, second) for number, track in zip(ids[:count], agents, strict=True)} for second in seconds
    )
    return Drive(street_name(split, index), frame_names(cfg), tuple(ids[:count]), cars, plans)


def _plan(track: Track, second: float) -> Float[np.ndarray, "p 3"]:
    """Waypoints, which have no times; as they always were, so that streets of one frame keep their bytes."""
    xy = track.ahead(second, np.arange(0.2, PLAN_S + 0.01, 0.2))
    return np.concatenate([xy, np.full((len(xy), 1), track.speed_mps * 3.6)], axis=1)
