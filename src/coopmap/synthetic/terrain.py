"""Rolling ground: an analytic heightfield, and how cars stand on it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import Material
from coopmap.synthetic.surface import Surface, quads

_CELL_M = 1.5
_HILLS_M = 320.0
_WHEELBASE_M, _TRACK_M = 2.8, 1.6


class Terrain:
    """Height of the ground over the plane: waves within the town, hills around it.

    Args:
        rng: decides the shape.
        size_m: edge of the town.
        slope_deg: steepest ground within the town.
        hills: height of the hills around it, relative to the town's.
        cell_m: cells of the mesh within.
        rings: cells of the mesh from there to the horizon.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size_m: float,
        slope_deg: float,
        hills: float = 1.0,
        cell_m: float = _CELL_M,
        rings: int = 24,
    ) -> None:
        self.size_m = size_m
        self._hills, self._cell_m, self._rings = hills, cell_m, rings
        wavelength = np.array([130.0, 95.0, 75.0, 60.0, 50.0])
        heading = rng.uniform(0, 2 * np.pi, len(wavelength))
        self._wave = 2 * np.pi / wavelength[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
        self._phase = rng.uniform(0, 2 * np.pi, len(wavelength))
        self._amplitude = wavelength / wavelength[0]
        self._hill_phase = rng.uniform(0, 2 * np.pi, 4)
        line = np.linspace(-size_m / 2, size_m / 2, 200)
        x, y = np.meshgrid(line, line)
        self._amplitude *= np.tan(np.deg2rad(slope_deg)) / np.hypot(*self._gradient_of_waves(x, y)).max()

    def _gradient_of_waves(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        cosine = np.cos(self._wave[:, 0] * x[..., None] + self._wave[:, 1] * y[..., None] + self._phase)
        return np.moveaxis((self._amplitude * cosine) @ self._wave, -1, 0)

    def height(self, x: Float[np.ndarray, "*b"], y: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
        """Height of the ground, meters."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        waves = np.sin(self._wave[:, 0] * x[..., None] + self._wave[:, 1] * y[..., None] + self._phase)
        radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
        start = self.size_m / 2 * 1.35
        rise = np.clip((radius - start) / (_HILLS_M - start), 0, 1) ** 1.5
        ridge = 34.0
        for order, phase in enumerate(self._hill_phase, start=1):
            ridge = ridge + 20.0 / order * np.sin((2 * order - 1) * azimuth + phase)
        return waves @ self._amplitude + self._hills * rise * np.maximum(ridge, 6.0)

    def surface(self) -> Surface:
        """Mesh of the ground: fine within the town, coarse on the hills."""
        inner = self.size_m / 2 + 15.0
        fine = np.linspace(-inner, inner, round(2 * inner / self._cell_m) + 1)
        outer = inner + (1.25 * _HILLS_M - inner) * np.linspace(0, 1, self._rings + 1)[1:] ** 1.5
        line = np.concatenate([-outer[::-1], fine, outer])
        x, y = np.meshgrid(line, line, indexing="ij")
        grid = np.stack([x, y, self.height(x, y)], axis=-1)
        corners = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
        return quads(corners.reshape(-1, 4, 3), Material.GROUND, (1.0, 1.0, 1.0))

    def lowest(self, rect: tuple[float, float, float, float]) -> float:
        """Lowest ground under a rectangle ``(x_min, y_min, x_max, y_max)``."""
        x, y = np.meshgrid(np.linspace(rect[0], rect[2], 7), np.linspace(rect[1], rect[3], 7))
        return float(self.height(x, y).min())

    def stand(
        self, x: Float[np.ndarray, "*b"], y: Float[np.ndarray, "*b"], yaw: Float[np.ndarray, "*b"]
    ) -> Float[np.ndarray, "*b 4 4"]:
        """``T_world_car`` of cars whose wheels stand on the ground, CARLA axes, yaw in radians.

        The car's plane is the least-squares plane through the four wheels' contact points.
        """
        forward = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        right = np.stack([-forward[..., 1], forward[..., 0]], axis=-1)
        half = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.array([_WHEELBASE_M, _TRACK_M]) / 2
        wheel = np.stack([x, y], axis=-1)[..., None, :] + half[:, :1] * forward[..., None, :]
        wheel = wheel + half[:, 1:] * right[..., None, :]
        height = self.height(wheel[..., 0], wheel[..., 1])
        along, across = np.moveaxis(height @ (half / (half**2).sum(axis=0)), -1, 0)
        nose = np.concatenate([forward, along[..., None]], axis=-1)
        roof = np.concatenate(
            [-along[..., None] * forward - across[..., None] * right, np.ones_like(nose[..., :1])], -1
        )
        nose /= np.linalg.norm(nose, axis=-1, keepdims=True)
        roof /= np.linalg.norm(roof, axis=-1, keepdims=True)
        pose = np.zeros((*np.shape(x), 4, 4))
        pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2] = nose, np.cross(roof, nose), roof
        pose[..., 0, 3], pose[..., 1, 3], pose[..., 2, 3], pose[..., 3, 3] = x, y, height.mean(axis=-1), 1.0
        return pose
