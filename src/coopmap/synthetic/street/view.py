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


def _planes(rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "c n"]:
    """Rows by column, in single precision: whole-array operations are slow along short axes."""
    return np.ascontiguousarray(rows.T, dtype=np.float32)


def _together(*parts: tuple[Integer[np.ndarray, " k"], Float[np.ndarray, "k 3"]]) -> Float[np.ndarray, "n 3"]:
    """Rows of several arrays in one, each at its place."""
    places, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.empty_like(places)
    order[places] = np.arange(len(places))
    return rows.take(order, axis=0)


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
        cosine = np.sqrt(np.clip(1 - (self._reach / np.maximum(length, self._reach)) ** 2, 0, 1)).astype(np.float32)
        ray = _planes(direction)
        ray /= np.linalg.norm(ray, axis=0)
        along = (toward / np.maximum(length, 1e-9)[:, None]).astype(np.float32) @ ray
        near = np.flatnonzero((along > cosine[:, None] - np.float32(1e-4)).any(axis=0))
        return near, self._caster.first_hits(origin, direction.take(near, axis=0), nearer_than[near])

    def blocked(self, points: Float[np.ndarray, "n 3"], direction: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " n"]:
        """Whether a car lies along a unit ``direction`` from each point."""
        dark = np.zeros(len(points), dtype=bool)
        if len(self._center) == 0:
            return dark
        middle = self._center.mean(axis=0)
        center, start = _planes(self._center - middle), _planes(points - middle.astype(points.dtype))
        toward = direction.astype(np.float32)
        along = (toward @ center)[:, None] - toward @ start
        apart = (center**2).sum(axis=0)[:, None] + (start**2).sum(axis=0) - 2 * (center.T @ start)
        reach = self._reach.astype(np.float32)[:, None] + np.float32(0.05)  # rounding: centimeters at 100 m
        near = np.flatnonzero(((apart - along**2 < reach**2) & (along > -reach)).any(axis=0))
        dark[near] = self._caster.blocked(points.take(near, axis=0), direction)
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
        self._normal = _planes(self._skin.normal)
        self._uv = _planes(self._skin.uv.reshape(-1, 6))
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
        hits, ray = self._cast(origin, direction), _planes(direction)
        hit = hits.triangle >= 0
        sky, seen = np.flatnonzero(~hit), np.flatnonzero(hit)
        lit = self._shade(
            origin,
            hits.triangle[seen],
            hits.barycentric.take(seen, axis=0).T,
            hits.distance[seen].astype(np.float32),
            ray.take(seen, axis=1),
            pixel,
        )
        return hits.distance, _together((sky, self._street.sky.lookup(*ray.take(sky, axis=1))), (seen, lit))

    def _shade(
        self,
        origin: np.ndarray,
        triangle: np.ndarray,
        barycentric: np.ndarray,
        distance: np.ndarray,
        ray: np.ndarray,
        pixel: float,
    ) -> np.ndarray:
        """Colors ``(n, 3)`` of points on triangles, seen along rays ``(3, n)``."""
        normal = self._normal.take(triangle, axis=1)
        facing = (normal * ray).sum(axis=0)
        normal *= -np.sign(facing)
        points = distance * ray + origin.astype(np.float32)[:, None]
        cosine = np.maximum(np.abs(facing) / np.linalg.norm(ray, axis=0), np.float32(0.02))
        footprint = distance * np.float32(pixel) / np.sqrt(cosine)
        light = self._street.light
        clear = np.exp(distance * np.float32(-1 / light.haze_m))
        shares = self._stains(points) * clear * self._received(points, normal, distance)
        # products of matrices: several times as fast as arrays repeated along an axis of 3
        color = self._albedo(triangle, barycentric, points, footprint)
        color *= shares.T @ np.stack([light.ambient, light.sun])
        color += (1 - clear)[:, None] @ light.haze[None]
        return color

    def _albedo(
        self, triangle: np.ndarray, barycentric: np.ndarray, points: np.ndarray, footprint: np.ndarray
    ) -> np.ndarray:
        """Colors ``(n, 3)`` of surfaces: of the ground by place, of other things by texture coordinates."""
        street, skin = self._street, self._skin
        material = skin.material[triangle]
        on_ground = material == Material.GROUND
        ground, other = np.flatnonzero(on_ground), np.flatnonzero(~on_ground)
        soil = street.ground.lookup(points[0, ground], points[1, ground], footprint[ground])
        chosen, second, third = triangle[other], barycentric[0, other], barycentric[1, other]
        corner = self._uv.take(chosen, axis=1)
        u, v = corner[:2] + second * corner[2:4] + third * corner[4:]
        texel = street.atlas.lookup(material[other], u, v, skin.tiles_per_m[chosen] * footprint[other])
        return _together((ground, soil), (other, texel[:, :3] + texel[:, 3:] * skin.color.take(chosen, axis=0)))

    def _stains(self, points: np.ndarray) -> np.ndarray:
        """Brightness of the weather's marks at points ``(3, n)``, around 1."""
        wave, strength = self._street.weather
        phase = wave.T @ points
        phase[1:] += np.float32(1.5) * np.sin(phase[:-1])  # no regular stripes
        return 1 + strength @ np.sin(phase)

    def _received(self, points: np.ndarray, normal: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Shares ``(2, n)`` of the light of the sky and of the sun that surfaces receive."""
        light = self._street.light
        received = np.zeros((2, len(distance)), dtype=np.float32)
        received[0] = np.float32(0.8) + np.float32(0.2) * normal[2]
        if not light.sun.any():
            return received
        sunny = np.maximum(light.toward_sun.astype(np.float32) @ normal, 0)
        tested = np.flatnonzero((sunny > 0) & (distance < _SHADOWS_M))
        start = np.ascontiguousarray((points + np.float32(0.04) * normal).take(tested, axis=1).T)
        dark = self._street.caster.blocked(start, light.toward_sun)
        bright = np.flatnonzero(~dark)
        dark[bright] = self._cars.blocked(start.take(bright, axis=0), light.toward_sun)
        sunny[tested[dark]] = 0
        received[1] = sunny
        return received

    def develop(self, color: Float[np.ndarray, "h w 3"], seed: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
        """See :class:`~coopmap.synthetic.view.View`."""
        return self._street.film.develop(color, seed)
