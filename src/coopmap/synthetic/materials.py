"""Procedural textures: tiles of materials with mip levels, and the sky.

A tile is RGBA: the shown color is ``rgb + a * tint``, so that windows keep their color on walls of any tint.
"""

from __future__ import annotations

from enum import IntEnum

import cv2
import numpy as np
from jaxtyping import Float, Integer

TILE = 64
"""Texels along the edge of a tile at its finest level."""

LEVELS = 7


class Material(IntEnum):
    """Index of a tile."""

    PLAIN = 0
    HOUSE = 1
    OFFICE = 2
    BRICK = 3
    ROOF = 4
    LEAVES = 5
    STRIPES = 6
    CHECKER = 7
    GLASS = 8
    GROUND = 9  # never looked up here: the ground has a texture of its own


def value_noise(rng: np.random.Generator, size: int, cells: int, octaves: int) -> Float[np.ndarray, "size size"]:
    """Smooth periodic-looking noise in [-1, 1], ``cells`` bumps across at the coarsest octave."""
    noise = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        grid = rng.uniform(-1, 1, (min(cells << octave, size),) * 2).astype(np.float32)
        noise += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return noise / np.abs(noise).max()


def draw_tiles(rng: np.random.Generator) -> Float[np.ndarray, "m t t 4"]:
    """The town's tiles, one per :class:`Material`."""
    v, u = np.mgrid[0:TILE, 0:TILE] / TILE
    tiles = np.zeros((len(Material), TILE, TILE, 4), dtype=np.float32)
    grain = 1 + 0.06 * rng.standard_normal((TILE, TILE))
    tiles[..., 3] = 1.0
    tiles[Material.HOUSE, ..., 3] = grain
    tiles[Material.OFFICE, ..., 3] = grain
    window = (np.abs(u - 0.5) < 0.24) & (np.abs(v - 0.45) < 0.27)
    frame = (np.abs(u - 0.5) < 0.30) & (np.abs(v - 0.45) < 0.33) & ~window
    _paint(tiles[Material.HOUSE], frame, (0.88, 0.88, 0.84))
    _paint(tiles[Material.HOUSE], window, (0.13, 0.17, 0.23))
    _paint(tiles[Material.HOUSE], window & (u + v < 0.8), (0.26, 0.33, 0.42))
    band = np.abs(v - 0.45) < 0.28
    _paint(tiles[Material.OFFICE], band, (0.20, 0.30, 0.38))
    _paint(tiles[Material.OFFICE], band & (np.abs(u - 0.5) > 0.46), (0.7, 0.7, 0.7))
    course = np.floor(v * 16)
    mortar = (np.mod(v * 16, 1) < 0.15) | (np.mod(u * 8 + 0.5 * np.mod(course, 2), 1) < 0.08)
    tiles[Material.BRICK, ..., 3] = np.where(mortar, 1.25, 0.92 * grain)
    _paint(tiles[Material.BRICK], np.abs(u - 0.5) < 0.2, (0.16, 0.2, 0.26), where=np.abs(v - 0.45) < 0.25)
    tiles[Material.ROOF, ..., 3] = 0.8 + 0.3 * np.mod(v * 8, 1) * grain
    tiles[Material.LEAVES, ..., 3] = 1 + 0.35 * value_noise(rng, TILE, 8, 3)
    _paint(tiles[Material.STRIPES], np.mod(v, 1) < 0.5, (0.93, 0.93, 0.9))
    _paint(tiles[Material.CHECKER], (u < 0.5) == (v < 0.5), (0.93, 0.93, 0.9))
    _paint(tiles[Material.GLASS], np.ones_like(u, dtype=bool), (0.10, 0.13, 0.17))
    return tiles


def _paint(
    tile: np.ndarray, mask: np.ndarray, rgb: tuple[float, float, float], where: np.ndarray | None = None
) -> None:
    mask = mask if where is None else mask & where
    tile[mask] = (*rgb, 0.0)


class TileAtlas:
    """All tiles at all mip levels in one flat table."""

    def __init__(self, level: Float[np.ndarray, "m t t 4"]) -> None:
        levels: list[np.ndarray] = [level.reshape(-1, TILE, 4).astype(np.float32)]  # one tile below the other
        for _ in range(LEVELS - 1):
            height, width = levels[-1].shape[:2]
            levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
        parts = [each.reshape(-1, 4) for each in levels]
        self._start = np.cumsum([0, *map(len, parts[:-1])])
        self._texels = np.concatenate(parts)

    def lookup(
        self,
        material: Integer[np.ndarray, " n"],
        u: Float[np.ndarray, " n"],
        v: Float[np.ndarray, " n"],
        tiles_per_pixel: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, "n 4"]:
        """RGBA of the texel under each texture coordinate, at the mip level that suits the pixel's footprint."""
        level = np.clip(np.log2(np.maximum(tiles_per_pixel * TILE, 1.0)) + 0.5, 0, LEVELS - 1).astype(np.int32)
        size = np.int32(TILE) >> level
        # float32 rounding can give 1.0 for the fraction of a tiny negative number
        row, column = (np.minimum(((each - np.floor(each)) * size).astype(np.int32), size - 1) for each in (v, u))
        return self._texels.take(self._start[level] + (material * size + row) * size + column, axis=0)


class Sky:
    """Color of the sky by world direction: gradient, haze, clouds and sun, fixed in the world."""

    def __init__(self, rng: np.random.Generator, sun: Float[np.ndarray, "3"], rows: int = 256) -> None:
        self._rows, self._columns = rows, 4 * rows
        elevation = np.linspace(np.pi / 2, -0.1, rows)[:, None]
        azimuth = (np.arange(self._columns) + 0.5)[None] / self._columns * 2 * np.pi - np.pi
        direction = np.stack(
            np.broadcast_arrays(
                np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
            ),
            axis=-1,
        )
        up = np.clip(direction[..., 2:], 0, 1)
        zenith, horizon = np.array([0.20, 0.42, 0.80]), np.array([0.80, 0.87, 0.93])
        color = horizon + (zenith - horizon) * up**0.45
        toward_sun = np.clip(direction @ sun, 0, 1)[..., None]
        warm = np.array([1.0, 0.86, 0.62])
        color = color + (warm - color) * (0.45 * toward_sun**6 + 0.5 * toward_sun**60)
        clouds = np.clip(self._clouds(rng, direction) * 1.6 - 0.25, 0, 0.85)[..., None] * np.clip(up * 6, 0, 1)
        color = color + (np.array([0.97, 0.97, 0.98]) - color) * clouds
        color = np.where(toward_sun > 0.9994, 1.0, color)
        self._texels = np.clip(color, 0, 1).reshape(-1, 3).astype(np.float32)

    @staticmethod
    def _clouds(rng: np.random.Generator, direction: np.ndarray) -> np.ndarray:
        """Noise on a cloud layer 1 above the ground, seen in perspective."""
        size = 1024
        noise = value_noise(rng, size, 24, 4)
        plane = direction[..., :2] / (np.clip(direction[..., 2:], 0, None) + 0.25)
        index = np.clip((plane / 8 + 0.5) * size, 0, size - 1).astype(np.int64)
        return noise[index[..., 1], index[..., 0]]

    def lookup(self, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """RGB seen along world directions (any length)."""
        elevation = np.arctan2(direction[:, 2], np.hypot(direction[:, 0], direction[:, 1]))
        row = (np.pi / 2 - elevation) * ((self._rows - 1) / (np.pi / 2 + 0.1))
        column = (np.arctan2(direction[:, 1], direction[:, 0]) + np.pi) * (self._columns / (2 * np.pi))
        row = np.clip(row, 0, self._rows - 1).astype(np.int64)
        return self._texels[row * self._columns + column.astype(np.int64) % self._columns]
