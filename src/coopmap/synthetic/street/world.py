"""A street: everything that stands still in one scenario, drawn from its seed alone, ready to be ray-cast."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from coopmap.config.synth import TownConfig
from coopmap.synthetic.cars import MODELS, Car, random_paint
from coopmap.synthetic.materials import TileAtlas
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.scenario import SPLITS
from coopmap.synthetic.skin import Skin
from coopmap.synthetic.street.facades import street_tiles
from coopmap.synthetic.street.ground import HALF_M, StreetGround
from coopmap.synthetic.street.look import Film, draw_light
from coopmap.synthetic.street.place import Site, place_backdrop, place_buildings, place_furniture, place_parked
from coopmap.synthetic.street.roads import draw_roads
from coopmap.synthetic.street.styles import STYLES
from coopmap.synthetic.surface import merge
from coopmap.synthetic.terrain import Terrain

HARD_SHARE = 0.2
"""Share of streets whose parts repeat."""

HARD = ("identical", "blank", "empty")
"""Hard streets: identical houses, walls without windows, or a junction with nothing around it."""

_SLOPE_SHARES, _SLOPES_DEG = (0.6, 0.25, 0.15), ((0.0, 0.2), (0.2, 2.0), (2.0, 6.0))
"""Steepest slope of a street: shares of streets, and their ranges. OPV2V's roads: 95 % under 0.2 degrees."""


def street_seed(seed: int, split: str, index: int) -> list[int]:
    """What a street is drawn from: no two scenarios of any splits share it, nor does a town."""
    return [seed, 3, SPLITS.index(split), index]


class Street:
    """Static world of one scenario.

    Attributes:
        style: its style's name.
        hard: ``none`` or one of :data:`HARD`.
        slope_deg: steepest ground.
        roads: its roads.
        terrain: height of the ground.
        parked: parked cars.
        surface: all static triangles, the parked cars among them, CARLA axes.
        skin: appearance of ``surface``.
        caster: ray caster of ``surface``.
        atlas: material tiles.
        ground: color of the ground.
        light: sun and sky light.
        sky: color of the sky.
        film: how cameras see.
        weather: directions and strength of stains on everything.
    """

    def __init__(self, cfg: TownConfig, split: str, index: int) -> None:
        rng = np.random.default_rng(street_seed(cfg.seed, split, index))
        self.style, self.hard = draw_kind(rng, cfg.styles)
        style = STYLES[self.style]
        self.slope_deg = _draw_slope(rng)
        self.roads = draw_roads(rng, style)
        self.terrain = Terrain(
            rng, 2 * HALF_M, self.slope_deg, hills=max(0.0, rng.uniform(-0.5, 0.8)), cell_m=4.0, rings=9
        )
        tiles, self.facades = street_tiles(rng, style.facades, self.hard == "blank")
        self.atlas = TileAtlas(tiles)
        self.light, self.sky = draw_light(rng)
        self.film = Film.draw(rng, self.light)
        site = Site(self.roads)
        place_buildings(rng, site, style, self.hard)
        self.parked = self._park(rng, place_parked(rng, site, style, self.hard))
        place_furniture(rng, site, style, self.hard)
        place_backdrop(rng, site, style)
        heights = self.terrain.height(*np.array([thing[1:3] for thing in site.things]).reshape(-1, 2).T)
        self.surface = merge(
            [self.terrain.surface()]
            + [
                thing.at(x, y, float(z), float(np.rad2deg(yaw)))
                for (thing, x, y, yaw), z in zip(site.things, heights, strict=True)
            ]
            + [car.surface() for car in self.parked]
        )
        self.skin = Skin.of(self.surface)
        self.caster = Caster(self.surface.triangles)
        self.ground = StreetGround(rng, style, self.roads)
        self.weather = _draw_weather(rng)

    def _park(self, rng: np.random.Generator, spots: list[tuple[np.ndarray, float]]) -> list[Car]:
        if not spots:
            return []
        xy, yaw = np.array([place for place, _ in spots]), np.array([yaw for _, yaw in spots])
        poses = self.terrain.stand(xy[:, 0], xy[:, 1], yaw)
        return [
            Car(number, MODELS[rng.integers(len(MODELS))], random_paint(rng), pose, 0.0)
            for number, pose in enumerate(poses, start=100)
        ]

    def record(self) -> dict[str, str | float]:
        """What evaluations may sort streets by."""
        return {"style": self.style, "hard": self.hard, "slope_deg": round(self.slope_deg, 3)}


def draw_kind(rng: np.random.Generator, names: Sequence[str]) -> tuple[str, str]:
    """Style, one of ``names``, and hardness of a street: what is drawn first."""
    style = str(rng.choice(names))
    return style, str(rng.choice(HARD)) if rng.random() < HARD_SHARE else "none"


def _draw_slope(rng: np.random.Generator) -> float:
    return float(rng.uniform(*_SLOPES_DEG[rng.choice(len(_SLOPES_DEG), p=_SLOPE_SHARES)]))


def _draw_weather(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Waves whose sum stains surfaces: wave vectors ``(3, w)`` and amplitudes ``(w,)``."""
    count = 5
    direction = rng.standard_normal((3, count))
    length = np.exp(rng.uniform(np.log(0.8), np.log(14), count))
    wave = 2 * np.pi * direction / np.linalg.norm(direction, axis=0) / length
    return wave.astype(np.float32), rng.uniform(0.0, 0.09, count).astype(np.float32)


@lru_cache(maxsize=2)
def _street(seed: int, styles: tuple[str, ...], split: str, index: int) -> Street:
    cfg = TownConfig(towns="per_scenario", seed=seed, style=list(styles))
    return Street(cfg, split, index)


def street_of(cfg: TownConfig, split: str, index: int) -> Street:
    """The street of a scenario (kept while it is rendered)."""
    return _street(cfg.seed, tuple(cfg.styles), split, index)
