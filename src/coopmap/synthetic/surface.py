"""Textured triangle soup and the shapes of the town's parts.

Coordinates are CARLA's (x forward, y right, z up), meters. Texture coordinates count tiles of a material.
Corners ``a, b, c`` of a triangle run so that ``(b - a) x (c - a)`` points outward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Integer

from coopmap.geometry.se3_numpy import transform_points
from coopmap.synthetic.materials import Material


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles with appearance.

    Attributes:
        triangles: corners.
        uv: texture coordinates of the corners, in tiles.
        material: index of the tile, see :class:`Material`.
        color: tint, 0 to 1.
    """

    triangles: Float[np.ndarray, "f 3 3"]
    uv: Float[np.ndarray, "f 3 2"]
    material: Integer[np.ndarray, " f"]
    color: Float[np.ndarray, "f 3"]

    def placed(self, pose_ue: Float[np.ndarray, "4 4"]) -> Surface:
        """Copy moved by ``T_world_local``."""
        return Surface(transform_points(pose_ue, self.triangles), self.uv, self.material, self.color)

    def at(self, x: float, y: float, z: float, yaw_deg: float = 0.0) -> Surface:
        """Copy turned about z and moved."""
        yaw = np.deg2rad(yaw_deg)
        pose = np.eye(4)
        pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        pose[:3, 3] = x, y, z
        return self.placed(pose)


def merge(surfaces: Sequence[Surface]) -> Surface:
    """All triangles in one surface, in order."""
    if not surfaces:
        return quads(np.zeros((0, 4, 3)), Material.PLAIN, (0.0, 0.0, 0.0))
    return Surface(
        np.concatenate([surface.triangles for surface in surfaces]),
        np.concatenate([surface.uv for surface in surfaces]),
        np.concatenate([surface.material for surface in surfaces]),
        np.concatenate([surface.color for surface in surfaces]),
    )


def triangles(
    corners: Float[np.ndarray, "f 3 3"],
    material: int,
    color: Sequence[float] | np.ndarray,
    uv: Float[np.ndarray, "f 3 2"] | None = None,
) -> Surface:
    """Triangles of one material and color."""
    count = len(corners)
    return Surface(
        np.asarray(corners, dtype=np.float64),
        np.zeros((count, 3, 2)) if uv is None else uv,
        np.full(count, int(material), dtype=np.int64),
        _repeated(color, (count, 3)),
    )


def _repeated(row: Sequence[float] | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A row, or rows, as an array of this shape."""
    rows = np.empty(shape)
    rows[:] = row
    return rows


def quads(
    corners: Float[np.ndarray, "q 4 3"],
    material: int,
    color: Sequence[float] | np.ndarray,
    tiles: Float[np.ndarray, "q 2"] | tuple[float, float] = (1.0, 1.0),
) -> Surface:
    """Quadrilaterals, corners in order; texture runs ``tiles`` times along the first and the second edge."""
    corners = np.asarray(corners, dtype=np.float64)
    unit = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    uv = unit * _repeated(tiles, (len(corners), 2))[:, None]
    halves = [[0, 1, 2], [0, 2, 3]]
    return triangles(corners[:, halves].reshape(-1, 3, 3), material, color, uv[:, halves].reshape(-1, 3, 2))


def frustum_sides(
    bottom: tuple[float, float, float, float],
    top: tuple[float, float, float, float],
    z_bottom: float,
    z_top: float,
) -> Float[np.ndarray, "4 4 3"]:
    """Side faces (front, right, back, left) between two rectangles ``(x_min, y_min, x_max, y_max)``.

    Corners run along the top edge and then down, so the texture's first row is at the top.
    """

    def ring(rect: tuple[float, float, float, float], z: float) -> np.ndarray:
        x0, y0, x1, y1 = rect
        return np.array([[x1, y0, z], [x1, y1, z], [x0, y1, z], [x0, y0, z]])

    low, high = ring(bottom, z_bottom), ring(top, z_top)
    following = [1, 2, 3, 0]
    return np.stack([high[following], high, low, low[following]], axis=1)


def rectangle(rect: tuple[float, float, float, float], z: float) -> Float[np.ndarray, "1 4 3"]:
    """Horizontal rectangle ``(x_min, y_min, x_max, y_max)``."""
    x0, y0, x1, y1 = rect
    return np.array([[[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]])


def box(
    rect: tuple[float, float, float, float], z_bottom: float, z_top: float, color: Sequence[float] | np.ndarray
) -> Surface:
    """Box without a floor."""
    faces = np.concatenate([frustum_sides(rect, rect, z_bottom, z_top), rectangle(rect, z_top)])
    return quads(faces, Material.PLAIN, color)


def lathe(
    profile: Sequence[tuple[float, float]],
    sides: int,
    color: Sequence[float] | np.ndarray,
    material: int = Material.PLAIN,
    tiles: tuple[float, float] = (1.0, 1.0),
) -> Surface:
    """Surface of revolution about z through ``(radius, z)`` points, top to bottom.

    The texture runs ``tiles[0]`` times around and ``tiles[1]`` times along the profile.
    """
    radius, height = np.asarray(profile, dtype=np.float64).T
    grid = np.empty((len(radius), sides + 1, 3))
    grid[..., :2] = radius[:, None, None] * _ring(sides)
    grid[..., 2] = height[:, None]
    along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radius), np.diff(height)))])
    uv = np.empty((len(radius), sides + 1, 2))
    uv[..., 0] = np.linspace(0, tiles[0], sides + 1)
    uv[..., 1] = (along / along[-1] * tiles[1])[:, None]

    def cells(array: np.ndarray) -> np.ndarray:
        corners = np.stack([array[:-1, 1:], array[:-1, :-1], array[1:, :-1], array[1:, 1:]], axis=2)
        return corners.reshape(-1, 4, array.shape[-1])[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3, array.shape[-1])

    # of the two triangles of a cell, one lies along its upper edge, the other along its lower: at poles they collapse
    wide = radius > 1e-9
    keep = np.repeat(np.stack([wide[:-1], wide[1:]], axis=-1)[:, None], sides, axis=1).reshape(-1)
    return triangles(cells(grid)[keep], material, color, cells(uv)[keep])


@lru_cache(maxsize=16)
def _ring(sides: int) -> Float[np.ndarray, "s 2"]:
    """Points on the unit circle, the first again at the end."""
    angle = np.linspace(0.0, 2 * np.pi, sides + 1)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
