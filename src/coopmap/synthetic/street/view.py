"""What rays see on a street: distance, and color from texture, sun with shadows, sky light, stains and haze."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import Material
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.skin import Skin
from coopmap.synthetic.street.world import Street
from coopmap.synthetic.surface import Surface

_SHADOWS_M = 90.0
"""Farther surfaces are lit."""


class StreetView:
    """A street and the moving cars around one observer at one moment.

    Args:
        street: static world.
        cars: moving cars that the observer can see (its own is left out).
    """

    def __init__(self, street: Street, cars: Surface) -> None:
        self._street = street
        self._cars = Caster(cars.triangles)
        self._skin = Skin.joined(street.skin, Skin.of(cars))
        self._static_count = len(street.surface.triangles)

    def distance(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Distance to the first surface in lengths of ``direction``, infinite for the sky."""
        static = self._street.caster.first_hits(origin, direction)
        return np.minimum(static.distance, self._cars.first_hits(origin, direction).distance)

    def look(
        self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"], pixel: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """Distance (as :meth:`distance`) and linear color.

        Args:
            origin: camera position, CARLA axes.
            direction: ray of each pixel.
            pixel: width of a pixel at distance 1 along ``direction``.
        """
        static = self._street.caster.first_hits(origin, direction)
        cars = self._cars.first_hits(origin, direction, nearer_than=static.distance)
        on_car = cars.triangle >= 0
        distance = np.where(on_car, cars.distance, static.distance)
        triangle = np.where(on_car, cars.triangle + self._static_count, static.triangle)
        barycentric = np.where(on_car[:, None], cars.barycentric, static.barycentric)
        ray = direction.astype(np.float32)
        color = np.empty((len(ray), 3), dtype=np.float32)
        miss = ~np.isfinite(distance)
        sky, seen = np.flatnonzero(miss), np.flatnonzero(~miss)
        color[sky] = self._street.sky.lookup(ray[sky])
        reach = distance[seen].astype(np.float32)
        lit = self._shade(origin, triangle[seen], barycentric[seen], reach, ray[seen], pixel)
        light = self._street.light
        clear = np.exp(reach * np.float32(-1 / light.haze_m))[:, None]
        color[seen] = light.haze + (lit - light.haze) * clear
        return distance, color

    def _shade(
        self,
        origin: np.ndarray,
        triangle: np.ndarray,
        barycentric: np.ndarray,
        distance: np.ndarray,
        ray: np.ndarray,
        pixel: float,
    ) -> np.ndarray:
        street, skin = self._street, self._skin
        normal, material = skin.normal[triangle], skin.material[triangle]
        facing = np.einsum("ni,ni->n", normal, ray)
        normal = normal * -np.sign(facing)[:, None]
        cosine = np.maximum(np.abs(facing) / np.linalg.norm(ray, axis=-1), 0.02)
        points = distance[:, None] * ray
        footprint = distance * np.float32(pixel) / np.sqrt(cosine)
        albedo = np.empty_like(ray)
        on_ground = material == Material.GROUND
        ground, other = np.flatnonzero(on_ground), np.flatnonzero(~on_ground)
        albedo[ground] = street.ground.lookup(points[ground, :2] + np.float32(origin[:2]), footprint[ground])
        chosen, weight = triangle[other], barycentric[other]
        corner = skin.uv[chosen]
        uv = corner[:, 0] + weight[:, :1] * corner[:, 1] + weight[:, 1:] * corner[:, 2]
        texel = street.atlas.lookup(material[other], uv, skin.tiles_per_m[chosen] * footprint[other])
        albedo[other] = texel[:, :3] + texel[:, 3:] * skin.color[chosen]
        wave, strength = street.weather
        albedo *= 1 + (np.sin(points @ wave + np.float32(origin) @ wave) @ strength)[:, None]
        light = street.light.ambient * (0.8 + 0.2 * normal[:, 2:])
        if street.light.sun.any():
            light += street.light.sun * self._sunlight(origin, points, normal, distance)[:, None]
        return albedo * light

    def _sunlight(self, origin: np.ndarray, points: np.ndarray, normal: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Share of the sun's light that surfaces at ``origin + points`` receive."""
        toward_sun = self._street.light.toward_sun
        received = np.maximum(normal @ np.float32(toward_sun), 0)
        tested = np.flatnonzero((received > 0) & (distance < _SHADOWS_M))
        start = origin + points[tested] + 0.04 * normal[tested]
        dark = self._street.caster.blocked(start, toward_sun)
        bright = np.flatnonzero(~dark)
        dark[bright] = self._cars.blocked(start[bright], toward_sun)
        received[tested[dark]] = 0
        return received

    def develop(self, color: Float[np.ndarray, "h w 3"], seed: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
        """Pixels in [0, 1] of an image of linear colors; ``seed`` decides the noise."""
        return self._street.film.develop(color, seed)
