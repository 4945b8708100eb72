"""What a ray sees: distance, and color from texture, sun, sky light and haze."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import Material
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.skin import AMBIENT, SUN, Skin
from coopmap.synthetic.surface import Surface
from coopmap.synthetic.town import Town

_HAZE_M = 700.0
_HAZE_COLOR = np.array([0.78, 0.84, 0.90], dtype=np.float32)
_CAR_SHADOW_M = 70.0


class TownView:
    """The town and the cars around one observer at one moment.

    Args:
        town: static world.
        cars: moving cars that the observer can see (its own is left out).
    """

    def __init__(self, town: Town, cars: Surface) -> None:
        self._town = town
        self._cars, self._cars_skin = Caster(cars.triangles), Skin.of(cars)

    def distance(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """See :class:`~coopmap.synthetic.view.View`."""
        static = self._town.caster.first_hits(origin, direction)
        return np.minimum(static.distance, self._cars.first_hits(origin, direction).distance)

    def look(
        self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"], pixel: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """See :class:`~coopmap.synthetic.view.View`; colors are RGB in [0, 1]."""
        static = self._town.caster.first_hits(origin, direction)
        cars = self._cars.first_hits(origin, direction, nearer_than=static.distance)
        distance = np.where(cars.triangle >= 0, cars.distance, static.distance)
        ray = direction.astype(np.float32)
        color = np.empty((len(ray), 3), dtype=np.float32)
        sky = np.flatnonzero(~np.isfinite(distance))
        color[sky] = self._town.sky.lookup(ray[sky])
        on_car = np.flatnonzero(cars.triangle >= 0)
        on_town = np.flatnonzero((cars.triangle < 0) & (static.triangle >= 0))
        ground = self._town.skin.material[static.triangle[on_town]] == Material.GROUND
        for chosen, hits, skin in (
            (on_car, cars, self._cars_skin),
            (on_town[~ground], static, self._town.skin),
        ):
            color[chosen] = self._shade(
                skin,
                hits.triangle[chosen],
                hits.barycentric[chosen],
                distance[chosen].astype(np.float32),
                ray[chosen],
                pixel,
            )
        chosen = on_town[ground]
        points = origin + distance[chosen, None] * direction[chosen]
        color[chosen] = self._shade_ground(points, distance[chosen], ray[chosen], pixel)
        seen = np.flatnonzero(np.isfinite(distance))
        haze = 1 - np.exp(-distance[seen, None].astype(np.float32) / _HAZE_M)
        color[seen] += (_HAZE_COLOR - color[seen]) * haze
        return distance, np.clip(color, 0, 1)

    def develop(self, color: Float[np.ndarray, "h w 3"], seed: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
        """The colors: in the town, cameras neither add noise nor change them."""
        return color

    def _shade(
        self,
        skin: Skin,
        triangle: np.ndarray,
        barycentric: np.ndarray,
        distance: np.ndarray,
        ray: np.ndarray,
        pixel: float,
    ) -> np.ndarray:
        normal = skin.normal[triangle]
        facing = np.einsum("ni,ni->n", normal, ray)
        normal = normal * -np.sign(facing)[:, None]
        corner = skin.uv[triangle]
        uv = corner[:, 0] + barycentric[:, :1] * corner[:, 1] + barycentric[:, 1:] * corner[:, 2]
        cosine = np.abs(facing) / np.linalg.norm(ray, axis=-1)
        # between the narrow and the wide side of the footprint: sharp enough, little shimmer
        footprint = skin.tiles_per_m[triangle] * distance * np.float32(pixel) / np.sqrt(np.maximum(cosine, 0.02))
        texel = self._town.atlas.lookup(skin.material[triangle], uv[:, 0], uv[:, 1], footprint)
        albedo = texel[:, :3] + texel[:, 3:] * skin.color[triangle]
        sun = np.clip(normal @ self._town.sun.astype(np.float32), 0, 1)
        sky = AMBIENT * (0.82 + 0.18 * normal[:, 2])
        return albedo * (sky + SUN * sun)[:, None]

    def _shade_ground(self, points: np.ndarray, distance: np.ndarray, ray: np.ndarray, pixel: float) -> np.ndarray:
        slant = np.linalg.norm(ray, axis=-1) / np.maximum(np.abs(ray[:, 2]), 0.02)
        color = self._town.ground.lookup(points[:, :2], distance * pixel * np.sqrt(slant))
        near = np.flatnonzero(distance < _CAR_SHADOW_M)
        shadowed = near[self._cars.blocked(points[near] + [0, 0, 0.05], self._town.sun)]
        color[shadowed] *= AMBIENT / (AMBIENT + SUN * self._town.sun[2])
        return color
