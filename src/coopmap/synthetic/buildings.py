"""Buildings, landmarks, trees and signs. Every shape stands on z = 0 of its own frame unless it says otherwise."""

from __future__ import annotations

import colorsys

import numpy as np

from coopmap.synthetic.materials import Material
from coopmap.synthetic.surface import Surface, box, frustum_sides, lathe, merge, quads, rectangle, triangles

Rect = tuple[float, float, float, float]
Color = tuple[float, float, float]

_BAY_M, _STOREY_M = 3.2, 3.0


def building(rng: np.random.Generator, rect: Rect, z_base: float, z_ground: float, hue: float) -> Surface:
    """House, brick block or office on a rectangle; walls reach down from ``z_ground`` to ``z_base``."""
    kind = rng.choice([Material.HOUSE, Material.BRICK, Material.OFFICE], p=[0.45, 0.25, 0.3])
    storeys = int(rng.integers(2, 4) if kind == Material.HOUSE else rng.integers(3, 7))
    if rng.random() < 0.12:
        storeys += 3
    wall = _wall_color(rng, hue, kind)
    z_top = z_ground + storeys * _STOREY_M
    sides = frustum_sides(rect, rect, z_base, z_top)
    width = np.linalg.norm(sides[:, 1] - sides[:, 0], axis=-1)
    tiles = np.stack([np.maximum(np.round(width / _BAY_M), 1), np.full(4, (z_top - z_base) / _STOREY_M)], axis=-1)
    parts = [quads(sides, kind, wall, tiles)]
    if kind != Material.OFFICE and rng.random() < 0.75:
        parts.append(gable_roof(rect, z_top, float(rng.uniform(1.8, 3.2)), wall, _roof_color(rng, hue)))
    else:
        gray = float(rng.uniform(0.35, 0.6))
        parts.append(quads(rectangle(rect, z_top), Material.PLAIN, (gray, gray, gray)))
        x0, y0, x1, y1 = rect
        hut = (x0 + (x1 - x0) * 0.3, y0 + (y1 - y0) * 0.3, x0 + (x1 - x0) * 0.6, y0 + (y1 - y0) * 0.65)
        parts.append(box(hut, z_top, z_top + 1.8, tuple(0.8 * channel for channel in wall)))
    return merge(parts)


def _wall_color(rng: np.random.Generator, hue: float, kind: int) -> Color:
    saturation = {Material.HOUSE: 0.5, Material.BRICK: 0.62, Material.OFFICE: 0.34}[Material(kind)]
    return colorsys.hsv_to_rgb(
        (hue + rng.normal(0, 0.035)) % 1.0, saturation * rng.uniform(0.75, 1.25), rng.uniform(0.62, 0.95)
    )


def _roof_color(rng: np.random.Generator, hue: float) -> Color:
    return colorsys.hsv_to_rgb((hue + 0.45 + rng.normal(0, 0.05)) % 1.0, 0.5, rng.uniform(0.35, 0.6))


def gable_roof(rect: Rect, z: float, rise: float, wall: Color, tint: Color) -> Surface:
    """Pitched roof with its ridge along the longer side."""
    x0, y0, x1, y1 = rect
    if x1 - x0 >= y1 - y0:
        a, b, c, d = (x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)
        left, right = (x0, (y0 + y1) / 2, z + rise), (x1, (y0 + y1) / 2, z + rise)
    else:
        a, b, c, d = (x1, y0, z), (x1, y1, z), (x0, y1, z), (x0, y0, z)
        left, right = ((x0 + x1) / 2, y0, z + rise), ((x0 + x1) / 2, y1, z + rise)
    slopes = np.array([[right, left, a, b], [left, right, c, d]])
    ends = np.array([[left, d, a], [right, b, c]])
    return merge([quads(slopes, Material.ROOF, tint, (1.0, 1.0)), triangles(ends, Material.PLAIN, wall)])


def landmark(kind: int, color: Color, width: float) -> Surface:
    """One of several shapes that no building has, tall enough to be seen over the roofs; at most ``width`` wide."""
    white = (0.93, 0.93, 0.9)
    shapes = {
        0: lambda: merge(  # lighthouse
            [
                lathe([(2.6, 26), (3.6, -3)], 16, color, Material.STRIPES, (1, 5)),
                lathe([(0, 32), (2.2, 29.5), (2.2, 26)], 12, white),
                lathe([(3.2, 26), (3.2, 25.3)], 12, color),
            ]
        ),
        1: lambda: merge(  # domed hall
            [
                lathe([(7 * np.cos(t), 8 + 7 * np.sin(t)) for t in np.linspace(np.pi / 2, 0, 7)], 20, color),
                lathe([(7, 8), (7, -3)], 20, white),
                lathe([(0, 21), (0.5, 15)], 6, (0.9, 0.75, 0.2)),
            ]
        ),
        2: lambda: quads(  # pyramid
            frustum_sides((-7, -7, 7, 7), (-0.3, -0.3, 0.3, 0.3), -3, 20), Material.CHECKER, color, (7, 8)
        ),
        3: lambda: merge(  # water tower
            [
                lathe([(1.0, 19), (1.4, -3)], 10, white),
                lathe([(5 * np.cos(t), 22 + 5 * np.sin(t)) for t in np.linspace(np.pi / 2, -np.pi / 2, 11)], 18, color),
            ]
        ),
        4: lambda: merge(  # checkered slab
            [
                quads(frustum_sides((-5, -2, 5, 2), (-5, -2, 5, 2), -3, 30), Material.CHECKER, color, (4, 13)),
                quads(rectangle((-5, -2, 5, 2), 30), Material.PLAIN, color),
            ]
        ),
        5: lambda: merge(  # rocket
            [lathe([(0, 34), (2.6, 24)], 14, color), lathe([(2.6, 24), (2.6, -3)], 14, color, Material.CHECKER, (3, 6))]
        ),
    }
    shape = shapes[kind % len(shapes)]()
    slimmed = shape.triangles * np.array([*(min(1.0, width / 14.0),) * 2, 1.0])
    return Surface(slimmed, shape.uv, shape.material, shape.color)


def tree(rng: np.random.Generator, hue: float) -> Surface:
    """Round or pointed tree, 4 to 8 m tall."""
    height = float(rng.uniform(4.0, 8.0))
    trunk = lathe([(0.14, 0.55 * height), (0.2, -1.0)], 5, (0.33, 0.24, 0.16))
    leaves = colorsys.hsv_to_rgb((hue + rng.normal(0, 0.02)) % 1.0, rng.uniform(0.5, 0.75), rng.uniform(0.4, 0.65))
    radius = float(rng.uniform(1.1, 1.7))
    if rng.random() < 0.35:
        profile = [(0.0, height), (radius, 0.3 * height), (0.15, 0.28 * height)]
    else:
        middle, reach = 0.66 * height, 0.36 * height
        profile = [(radius * np.cos(t), middle + reach * np.sin(t)) for t in np.linspace(np.pi / 2, -np.pi / 2, 7)]
    return merge([trunk, lathe(profile, 8, leaves, Material.LEAVES, (3, 2))])


def sign(color: Color) -> Surface:
    """Billboard on a post, facing both ways along x."""
    panel = (-0.1, -1.7, 0.1, 1.7)
    return merge(
        [
            lathe([(0.12, 3.0), (0.14, -1.0)], 6, (0.4, 0.4, 0.42)),
            quads(frustum_sides(panel, panel, 2.7, 4.9), Material.CHECKER, color, (2, 1.5)),
            quads(rectangle(panel, 4.9), Material.PLAIN, color),
        ]
    )
