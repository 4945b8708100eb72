"""What rays see on a street: distance, and color from texture, sun with shadows, sky light, stains and haze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from coopmap.synthetic.cars import Car
from coopmap.synthetic.materials import Material
from coopmap.synthetic.raycast import Caster, Hits
from coopmap.synthetic.skin import Skin
from coopmap.synthetic.street.world import Street
from coopmap.synthetic.surface import merge

_SHADOWS_M = 90.0
"""Farther surfaces are lit."""


class _MovingCars:
    """Ray caster of cars that skips rays which pass by their bounding spheres."""

    def __init__(self, cars: Sequence[Car]) -> None:
        self.surface = merge([car.surface() for car in cars])
        self._caster = Caster(self.surface.triangles)
        poses = np.array([car.pose_ue for car in cars]).reshape(-1, 4, 4)
        half_height = np.array([car.model.height / 2 for car in cars])
        self._center = poses[:, :3, 3] + poses[:, :3, 2] * half_height[:, None]
        extent = np.array([car.model.extent for car in cars]).reshape(-1, 3)
        self._reach = np.linalg.norm(extent, axis=-1) + 0.2

    def first_hits(
        self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"], nearer_than: Float[np.ndarray, " n"]
    ) -> tuple[Integer[np.ndarray, " k"], Hits]:
        """Which rays may hit a car, and what they hit."""
        toward = self._center - origin
        length = np.linalg.norm(toward, axis=1)
        # the sphere around a car is seen within this angle of the direction to its center
        cosine = np.sqrt(np.clip(1 - (self._reach / np.maximum(length, self._reach)) ** 2, 0, 1))
        ray = direction.astype(np.float32)
        along = ray @ (toward / np.maximum(length, 1e-9)[:, None]).T.astype(np.float32)
        limit = np.linalg.norm(ray, axis=1)[:, None] * cosine.astype(np.float32)
        near = np.flatnonzero((along > limit - 1e-4).any(axis=1))
        return near, self._caster.first_hits(origin, direction[near], nearer_than[near])

    def blocked(self, points: Float[np.ndarray, "n 3"], direction: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " n"]:
        """Whether a car lies along a unit ``direction`` from each point."""
        dark = np.zeros(len(points), dtype=bool)
        if len(self._center) == 0:
            return dark
        middle = self._center.mean(axis=0)
        center, start = ((each - middle).astype(np.float32) for each in (self._center, points))
        toward = direction.astype(np.float32)
        along = center @ toward - (start @ toward)[:, None]
        apart = np.einsum("ni,ni->n", start, start)[:, None] + (center**2).sum(axis=1) - 2 * (start @ center.T)
        reach = self._reach.astype(np.float32) + np.float32(0.05)  # rounding: centimeters at 100 m
        near = np.flatnonzero(((apart - along**2 < reach**2) & (along > -reach)).any(axis=1))
        dark[near] = self._caster.blocked(points[near], direction)
        return dark


class StreetView:
    """A street and the moving cars around one observer at one moment.

    Args:
        street: static world.
        cars: moving cars that the observer can see (its own is left out).
    """

    def __init__(self, street: Street, cars: Sequence[Car]) -> None:
        self._street = street
        self._cars = _MovingCars(cars)
        self._skin = Skin.joined(street.skin, Skin.of(self._cars.surface))
        self._static_count = len(street.surface.triangles)

    def _cast(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"]) -> Hits:
        """First hits; triangles of cars follow those of the street."""
        hits = self._street.caster.first_hits(origin, direction)
        near, cars = self._cars.first_hits(origin, direction, hits.distance)
        hit = np.flatnonzero(cars.triangle >= 0)
        rays = near[hit]
        hits.distance[rays] = cars.distance[hit]
        hits.triangle[rays] = cars.triangle[hit] + self._static_count
        hits.barycentric[rays] = cars.barycentric[hit]
        return hits

    def distance(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """See :class:`~coopmap.synthetic.view.View`."""
        return self._cast(origin, direction).distance

    def look(
        self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"], pixel: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """See :class:`~coopmap.synthetic.view.View`; colors are linear light."""
        hits = self._cast(origin, direction)
        ray = direction.astype(np.float32)
        color = np.empty((len(ray), 3), dtype=np.float32)
        miss = ~np.isfinite(hits.distance)
        sky, seen = np.flatnonzero(miss), np.flatnonzero(~miss)
        color[sky] = self._street.sky.lookup(ray[sky])
        reach = hits.distance[seen].astype(np.float32)
        lit = self._shade(origin, hits.triangle[seen], hits.barycentric[seen], reach, ray[seen], pixel)
        light = self._street.light
        clear = np.exp(reach * np.float32(-1 / light.haze_m))[:, None]
        color[seen] = light.haze + (lit - light.haze) * clear
        return hits.distance, color

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
        phase = (points + origin.astype(np.float32)) @ wave
        phase[:, 1:] += 1.5 * np.sin(phase[:, :-1])  # no regular stripes
        albedo *= 1 + (np.sin(phase) @ strength)[:, None]
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
        """See :class:`~coopmap.synthetic.view.View`."""
        return self._street.film.develop(color, seed)
