"""The town: everything that does not move, ready to be ray-cast."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from coopmap.config.synth import TownConfig
from coopmap.synthetic import buildings
from coopmap.synthetic.buildings import Rect
from coopmap.synthetic.cars import MODELS, Car, random_paint, vivid
from coopmap.synthetic.ground import GroundTexture
from coopmap.synthetic.materials import Sky, TileAtlas, draw_tiles
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.skin import AMBIENT, SUN, Skin
from coopmap.synthetic.streets import PAVEMENT_M, ROAD_HALF_M, StreetPlan
from coopmap.synthetic.surface import Surface, merge
from coopmap.synthetic.terrain import Terrain

_SUN_AZIMUTH_DEG, _SUN_ELEVATION_DEG = 35.0, 42.0
_FRONT_M = ROAD_HALF_M + PAVEMENT_M + 5.5
"""Distance of buildings from the middle of the street; between close walls parallax is too large."""
_PARKED_AT_M = ROAD_HALF_M - 1.02


class Town:
    """Static world of a configuration; depends on ``seed``, ``size_m`` and ``slope_deg`` only.

    Attributes:
        terrain: height of the ground.
        streets: street grid.
        parked: cars that stand at the curb.
        surface: all static triangles, the parked cars among them, CARLA axes.
        skin: appearance of ``surface``.
        caster: ray caster of ``surface``.
        atlas: material tiles.
        ground: color of the ground.
        sky: color of the sky.
        sun: unit vector toward the sun.
    """

    def __init__(self, seed: int, size_m: float, slope_deg: float) -> None:
        rng = np.random.default_rng([seed, 0])
        self.terrain = Terrain(rng, size_m, slope_deg)
        self.streets = StreetPlan.random(rng, size_m)
        self.parked = self._park(rng)
        self.surface = merge(
            [self.terrain.surface(), *self._fill_blocks(rng), *self._line_streets(rng)]
            + [car.surface() for car in self.parked]
        )
        azimuth, elevation = np.deg2rad([_SUN_AZIMUTH_DEG, _SUN_ELEVATION_DEG])
        self.sun = np.array(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        )
        self.skin = Skin.of(self.surface)
        self.caster = Caster(self.surface.triangles)
        self.atlas = TileAtlas(draw_tiles(rng))
        self.sky = Sky(rng, self.sun)
        self.ground = GroundTexture(rng, self.streets, size_m / 2 + 10, 400.0, self._light_on_ground)

    def _light_on_ground(self, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
        """Sun and sky light that reaches the ground, with the static world's shadows."""
        step = 0.5
        height = self.terrain.height(xy[:, 0], xy[:, 1])
        slope_x = (self.terrain.height(xy[:, 0] + step, xy[:, 1]) - height) / step
        slope_y = (self.terrain.height(xy[:, 0], xy[:, 1] + step) - height) / step
        facing = (self.sun[2] - slope_x * self.sun[0] - slope_y * self.sun[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
        origins = np.stack([xy[:, 0], xy[:, 1], height + 0.1], axis=-1)
        lit = ~self.caster.blocked(origins, self.sun)
        return AMBIENT + SUN * np.clip(facing, 0, 1) * lit

    def _park(self, rng: np.random.Generator) -> list[Car]:
        """Cars at the curb, away from junctions."""
        spots = []
        for start, end in self.streets.segments():
            length = float(np.linalg.norm(end - start))
            forward = (end - start) / length
            right = np.array([-forward[1], forward[0]])
            for side in (1.0, -1.0):
                places = np.arange(13.0, length - 13.0, 6.5)
                kerb = start + side * _PARKED_AT_M * right
                taken = places[rng.random(len(places)) < 0.17]
                spots += [(kerb + along * forward, side * forward) for along in taken]
        if not spots:
            return []
        place, heading = (np.array(column) for column in zip(*spots, strict=True))
        poses = self.terrain.stand(place[:, 0], place[:, 1], np.arctan2(heading[:, 1], heading[:, 0]))
        return [
            Car(index, MODELS[rng.integers(len(MODELS))], random_paint(rng), pose, 0.0)
            for index, pose in enumerate(poses, start=100)
        ]

    def _fill_blocks(self, rng: np.random.Generator) -> list[Surface]:
        """Buildings, groves and landmarks between the streets and around them."""
        x, y, half = self.streets.x, self.streets.y, self.terrain.size_m / 2 + 8
        x_edges, y_edges = np.concatenate([[-half], x, [half]]), np.concatenate([[-half], y, [half]])
        lots: list[tuple[Rect, bool]] = []
        for column in range(len(x_edges) - 1):
            for row in range(len(y_edges) - 1):
                outside = column in (0, len(x_edges) - 2) or row in (0, len(y_edges) - 2)
                block = (
                    x_edges[column] + (_FRONT_M if column else 0.0),
                    y_edges[row] + (_FRONT_M if row else 0.0),
                    x_edges[column + 1] - (_FRONT_M if column < len(x_edges) - 2 else 0.0),
                    y_edges[row + 1] - (_FRONT_M if row < len(y_edges) - 2 else 0.0),
                )
                lots += [(lot, outside) for lot in _split(rng, block)]
        monuments = set(self._monument_lots(rng, [lot for lot, _ in lots]))
        surfaces, kinds = [], 0
        for index, (lot, outside) in enumerate(lots):
            if index in monuments:
                color = vivid(kinds * 0.381966 + 0.02)
                surfaces.append(self._monument(lot, kinds, color))
                kinds += 1
            elif rng.random() < (0.4 if outside else 0.12):
                surfaces += self._grove(rng, lot)
            else:
                surfaces.append(self._building(rng, lot))
        return surfaces

    @staticmethod
    def _monument_lots(rng: np.random.Generator, lots: list[Rect]) -> list[int]:
        """Up to 14 roomy lots, 24 m or more from one another."""
        chosen: list[int] = []
        center = np.array([[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in lots])
        for index in rng.permutation(len(lots)):
            x0, y0, x1, y1 = lots[index]
            apart = all(np.linalg.norm(center[index] - center[other]) > 24 for other in chosen)
            if apart and min(x1 - x0, y1 - y0) > 8:
                chosen.append(int(index))
        return chosen[:14]

    def _monument(self, lot: Rect, kind: int, color: tuple[float, float, float]) -> Surface:
        x, y = (lot[0] + lot[2]) / 2, (lot[1] + lot[3]) / 2
        width = min(lot[2] - lot[0], lot[3] - lot[1]) - 0.6
        return buildings.landmark(kind, color, width).at(x, y, float(self.terrain.height(np.array(x), np.array(y))))

    def _building(self, rng: np.random.Generator, lot: Rect) -> Surface:
        inset = rng.uniform(0.0, 1.2, 4)
        rect = (lot[0] + inset[0], lot[1] + inset[1], lot[2] - inset[2], lot[3] - inset[3])
        x, y = (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2
        ground = float(self.terrain.height(np.array(x), np.array(y)))
        hue = np.arctan2(y, x) / (2 * np.pi)
        return buildings.building(rng, rect, self.terrain.lowest(rect) - 0.5, ground, float(hue))

    def _tree(self, rng: np.random.Generator, x: float, y: float) -> Surface:
        hue = 0.22 + 0.13 * np.sin(np.arctan2(y, x) * 2 + 0.5)  # autumn in two corners of the town
        return buildings.tree(rng, float(hue)).at(x, y, float(self.terrain.height(np.array(x), np.array(y))))

    def _grove(self, rng: np.random.Generator, lot: Rect) -> list[Surface]:
        count = 1 + round((lot[2] - lot[0]) * (lot[3] - lot[1]) / 45)
        margin = 1.7
        x = rng.uniform(lot[0] + margin, lot[2] - margin, count)
        y = rng.uniform(lot[1] + margin, lot[3] - margin, count)
        return [self._tree(rng, float(a), float(b)) for a, b in zip(x, y, strict=True)]

    def _line_streets(self, rng: np.random.Generator) -> list[Surface]:
        """Trees behind the sidewalks, and a differently colored sign at every junction."""
        surfaces = []
        for start, end in self.streets.segments():
            length = float(np.linalg.norm(end - start))
            forward = (end - start) / length
            right = np.array([-forward[1], forward[0]])
            for side in (1.0, -1.0):
                for along in np.arange(12.0, length - 12.0, 9.0):
                    if rng.random() < 0.4:
                        place = start + along * forward + side * (ROAD_HALF_M + PAVEMENT_M + 1.5) * right
                        surfaces.append(self._tree(rng, float(place[0]), float(place[1])))
        junctions = self.streets.junctions()
        for index, (x, y) in enumerate(junctions):
            for corner, (dx, dy) in enumerate(((1, 1), (-1, -1))):
                color = vivid((index + 0.5 * corner) / len(junctions) + 0.01, 0.95)
                px, py = x + dx * (ROAD_HALF_M + 1.5), y + dy * (ROAD_HALF_M + 1.5)
                height = float(self.terrain.height(np.array(px), np.array(py)))
                surfaces.append(buildings.sign(color).at(px, py, height, yaw_deg=45.0 + 90.0 * corner))
        return surfaces


def _split(rng: np.random.Generator, rect: Rect) -> list[Rect]:
    """Cut a block into lots of 8 to 17 m."""
    x0, y0, x1, y1 = rect
    if min(x1 - x0, y1 - y0) < 4:
        return []
    if max(x1 - x0, y1 - y0) < 17:
        return [rect]
    if x1 - x0 >= y1 - y0:
        cut = x0 + (x1 - x0) * rng.uniform(0.4, 0.6)
        return _split(rng, (x0, y0, cut, y1)) + _split(rng, (cut, y0, x1, y1))
    cut = y0 + (y1 - y0) * rng.uniform(0.4, 0.6)
    return _split(rng, (x0, y0, x1, cut)) + _split(rng, (x0, cut, x1, y1))


@lru_cache(maxsize=2)
def _town(seed: int, size_m: float, slope_deg: float) -> Town:
    return Town(seed, size_m, slope_deg)


def town_of(cfg: TownConfig) -> Town:
    """The town of a configuration (built once per process)."""
    return _town(cfg.seed, cfg.size_m, cfg.slope_deg)
