"""Walls and other tiles of a street, drawn anew for each: kinds of masonry, windows, doors and their proportions.

Tiles are RGBA as in :mod:`coopmap.synthetic.materials`: the shown color is ``rgb + a * tint``. The tiles of the town
keep their places; those of a street follow.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import TILE, Material, draw_tiles, value_noise

FACADES = 8
"""Facades per street."""

FIRST_FACADE = len(Material)
CORRUGATED, CONCRETE, HEDGE, FENCE, PICTURE = range(FIRST_FACADE + FACADES, FIRST_FACADE + FACADES + 5)
PICTURES = 4
"""Tiles from ``PICTURE`` on: signs and posters."""

COUNT = PICTURE + PICTURES


def street_tiles(
    rng: np.random.Generator, kinds: tuple[str, ...], blank: bool
) -> tuple[Float[np.ndarray, "m t t 4"], tuple[str, ...]]:
    """Tiles of a street, and the kind of each facade.

    Args:
        rng: decides.
        kinds: kinds of facades to choose from.
        blank: no facade has windows.
    """
    tiles = np.zeros((COUNT, TILE, TILE, 4), dtype=np.float32)
    tiles[..., 3] = 1.0
    tiles[:FIRST_FACADE] = _town_tiles()
    chosen = tuple(str(kind) for kind in rng.choice(kinds, FACADES))
    for index, kind in enumerate(chosen):
        _draw_facade(rng, tiles[FIRST_FACADE + index], kind, blank)
    v, u = _grid()
    grain = _grain(rng)
    tiles[CORRUGATED, ..., 3] = 0.82 + 0.2 * np.sin(2 * np.pi * u * rng.integers(6, 14)) + 0.3 * (grain - 1)
    tiles[CONCRETE, ..., 3] = grain * np.where((np.mod(u, 1) < 0.02) | (np.mod(v, 1) < 0.02), 0.7, 1.0)
    tiles[HEDGE, ..., 3] = 0.8 + 0.5 * _bank()[0, :TILE, :TILE] + 1.2 * (grain - 1)
    _draw_fence(rng, tiles[FENCE])
    for index in range(PICTURES):
        _draw_picture(rng, tiles[PICTURE + index])
    return tiles, chosen


@lru_cache(maxsize=1)
def _town_tiles() -> np.ndarray:
    return draw_tiles(np.random.default_rng(7))


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    """Noise to take pieces of."""
    rng = np.random.default_rng(8)
    return np.stack([value_noise(rng, 2 * TILE, 12, 4) for _ in range(4)])


@lru_cache(maxsize=1)
def _grid() -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE
    return v, u


def _grain(rng: np.random.Generator) -> np.ndarray:
    """Rough surface: around 1, a little dirt in patches."""
    row, column = rng.integers(0, TILE, 2)
    fine = rng.standard_normal((TILE, TILE), dtype=np.float32)
    patch = _bank()[rng.integers(4), row : row + TILE, column : column + TILE]
    return 1 + float(rng.uniform(0.02, 0.08)) * fine + float(rng.uniform(0.0, 0.12)) * patch


def _draw_facade(rng: np.random.Generator, tile: np.ndarray, kind: str, blank: bool) -> None:
    v, u = _grid()
    grain = _grain(rng)
    tile[..., 3] = grain * _masonry(rng, kind, u, v)
    if kind == "timber":
        beam = (np.abs(np.mod(u, 0.5) - 0.25) > 0.225) | (v < 0.06) | (np.abs(u - v * rng.uniform(0.6, 1.4)) < 0.03)
        tile[beam] = (*(np.array([0.28, 0.18, 0.1]) * rng.uniform(0.6, 1.4)), 0.0)
    if blank or kind in ("blank", "corrugated"):
        return
    if kind in ("office", "glass"):
        _draw_band(rng, tile, u, v, kind)
    else:
        _draw_window(rng, tile, u, v)


def _masonry(rng: np.random.Generator, kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Brightness pattern of a wall."""
    if kind in ("brick", "stone"):
        rows = int(rng.integers(12, 20) if kind == "brick" else rng.integers(5, 9))
        columns = rows // 2
        course = np.floor(v * rows)
        joint = (np.mod(v * rows, 1) < 0.16) | (np.mod(u * columns + 0.5 * np.mod(course, 2), 1) < 0.09)
        block = np.floor(u * columns + 0.5 * np.mod(course, 2)) % columns
        shade = rng.uniform(0.75, 1.1, (rows, columns))[course.astype(int), block.astype(int)]
        return np.where(joint, rng.uniform(0.7, 1.3), shade)
    if kind == "planks":
        across = u if rng.random() < 0.4 else v
        count = int(rng.integers(8, 18))
        return (0.85 + 0.2 * np.mod(across * count, 1)) * rng.uniform(0.9, 1.05, count)[(across * count).astype(int)]
    if kind == "corrugated":
        return 0.85 + 0.18 * np.sin(2 * np.pi * u * rng.integers(6, 13))
    if kind == "panel":
        return np.where((u < 0.03) | (v < 0.03), 0.6, 1.0)
    return np.ones_like(u)


def _draw_window(rng: np.random.Generator, tile: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    center, width, height = rng.uniform(0.35, 0.65), rng.uniform(0.14, 0.32), rng.uniform(0.18, 0.36)
    middle = rng.uniform(0.4, 0.5)
    x, y = np.abs(u - center), np.abs(v - middle)
    inside = (x < width) & (y < height)
    if rng.random() < 0.2:  # round arch
        inside &= (v > middle) | (np.hypot(x, y * width / height) < width)
    border = float(rng.uniform(0.02, 0.08))
    frame = (x < width + border) & (y < height + border)
    if rng.random() < 0.7:
        light = rng.uniform(0.15, 0.95)
        tile[frame] = (*(light * rng.uniform(0.85, 1.0, 3)), 0.0)
    if rng.random() < 0.3:  # shutters, in a color of their own
        shutter = (x < min(1.75 * width, 0.5)) & (y < height) & ~inside
        tile[shutter] = (*(rng.uniform(0.1, 0.7, 3)), 0.0)
    glass = rng.uniform(0.05, 0.25) * np.array([0.8, 1.0, 1.2])
    tile[inside] = (*glass, 0.0)
    tile[inside & (u + v < rng.uniform(0.6, 1.1))] = (*(glass + rng.uniform(0.02, 0.25)), 0.0)
    bars = int(rng.integers(0, 4))
    if bars:
        bar = (np.mod((u - center + width) / (2 * width) * bars, 1) < 0.08 * bars) | (y < 0.015)
        tile[inside & bar] = (*((rng.uniform(0.2, 0.95),) * 3), 0.0)
    if rng.random() < 0.3:  # blind or curtain
        drawn = inside & (v < middle - height + 2 * height * rng.uniform(0.2, 0.8))
        tile[drawn] = (*rng.uniform(0.45, 0.95, 3), 0.0)


def _draw_band(rng: np.random.Generator, tile: np.ndarray, u: np.ndarray, v: np.ndarray, kind: str) -> None:
    half = rng.uniform(0.4, 0.48) if kind == "glass" else rng.uniform(0.18, 0.34)
    band = np.abs(v - 0.48) < half
    glass = rng.uniform(0.1, 0.45) * rng.uniform(0.6, 1.3, 3)
    panes = int(rng.integers(1, 5))
    shade = rng.uniform(0.7, 1.3, panes)[np.minimum((u * panes).astype(int), panes - 1)]
    tile[band] = np.concatenate([np.clip(glass * shade[..., None], 0, 1), 0 * shade[..., None]], axis=-1)[band]
    post = band & (np.mod(u * panes, 1) < 0.05 * panes)
    tile[post] = (*((rng.uniform(0.2, 0.9),) * 3), 0.0)


def _draw_fence(rng: np.random.Generator, tile: np.ndarray) -> None:
    v, u = _grid()
    slats = int(rng.integers(4, 12))
    tile[..., 3] = np.where(np.mod(u * slats, 1) < rng.uniform(0.1, 0.35), 0.35, 1.0) * _grain(rng)
    tile[..., 3] *= np.where(np.abs(np.mod(v, 0.5) - 0.25) < 0.05, 0.7, 1.0)


def _draw_picture(rng: np.random.Generator, tile: np.ndarray) -> None:
    """Patches of color with bars like writing."""
    v, u = _grid()
    cells = rng.random((int(rng.integers(1, 5)), int(rng.integers(1, 4)), 3))
    rows, columns = cells.shape[:2]
    tile[..., :3] = cells[(v * rows).astype(int), (u * columns).astype(int)]
    tile[..., 3] = 0.0
    ink = rng.random(3)
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.uniform(0.05, 0.6), rng.uniform(0.1, 0.9)
        tile[(u > x) & (u < x + rng.uniform(0.1, 0.5)) & (np.abs(v - y) < rng.uniform(0.02, 0.08)), :3] = ink
    if rng.random() < 0.5:
        tile[np.hypot(u - rng.random(), v - rng.random()) < rng.uniform(0.1, 0.35), :3] = rng.random(3)
