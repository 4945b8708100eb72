"""Buildings. x runs along the road, y away from it, z up; the ground is at z = 0."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from coopmap.synthetic.buildings import Color, Rect, gable_roof
from coopmap.synthetic.materials import Material
from coopmap.synthetic.street import facades
from coopmap.synthetic.street.styles import Style
from coopmap.synthetic.surface import Surface, box, frustum_sides, merge, quads, rectangle

FOOT_M = 2.0
"""How deep things reach into the ground, so that slopes show no gap under them."""


@dataclass(frozen=True)
class BuildingPlan:
    """What a building looks like; the same plan twice gives two identical buildings.

    Attributes:
        width: along the road.
        depth: away from it.
        storeys: number of storeys.
        storey_m: height of one.
        facade: tile of the walls.
        ground_facade: tile of the lowest storey.
        wall: tint of the walls.
        ground_wall: tint of the lowest storey.
        roof: ``gable``, ``hip``, ``flat``, ``shed`` or ``saw``.
        roof_color: tint of the roof.
        rise: height of the roof.
        extras: seeds the smaller parts.
    """

    width: float
    depth: float
    storeys: int
    storey_m: float
    facade: int
    ground_facade: int
    wall: Color
    ground_wall: Color
    roof: str
    roof_color: Color
    rise: float
    extras: int


def plan_building(rng: np.random.Generator, style: Style, hue: float, size: tuple[float, float]) -> BuildingPlan:
    """A building of a style; its colors scatter around ``hue``."""
    storeys = int(rng.integers(style.storeys[0], style.storeys[1] + 1))
    facade = facades.FIRST_FACADE + int(rng.integers(facades.FACADES))
    other_ground = rng.random() < 0.35
    wall = paint(rng, hue, style.saturation, (0.25, 0.98))
    pitched = rng.random() < style.pitched
    roof = rng.choice(["gable", "gable", "hip"]) if pitched else rng.choice(["flat", "flat", "shed", "saw"])
    if size[0] > 20 and storeys <= 4 and not pitched and rng.random() < 0.4:
        roof = "saw"
    return BuildingPlan(
        *size, storeys, float(rng.uniform(*style.storey_m)), facade,
        facades.FIRST_FACADE + int(rng.integers(facades.FACADES)) if other_ground else facade,
        wall, paint(rng, rng.random(), style.saturation, (0.2, 0.9)) if other_ground else wall,
        str(roof), paint(rng, rng.choice([0.02, 0.06, 0.58, rng.random()]), (0.0, 0.6), (0.15, 0.7)),
        float(rng.uniform(0.25, 0.6)) * min(size), int(rng.integers(1 << 30)),
    )  # fmt: skip


def paint(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> tuple[float, float, float]:
    """A color around a hue."""
    return colorsys.hsv_to_rgb((hue + rng.normal(0, 0.06)) % 1.0, rng.uniform(*saturation), rng.uniform(*value))


def building(plan: BuildingPlan) -> Surface:
    """A building whose front lies on y = 0, centered on x = 0."""
    rng = np.random.default_rng(plan.extras)
    rect = (-plan.width / 2, 0.0, plan.width / 2, plan.depth)
    top, first = plan.storeys * plan.storey_m, plan.storey_m
    bays = rng.uniform(2.6, 4.2)
    parts = [_walls(rect, -FOOT_M, first, plan.ground_facade, plan.ground_wall, bays, plan.storey_m)]
    if plan.storeys > 1:
        parts.append(_walls(rect, first, top, plan.facade, plan.wall, bays, plan.storey_m))
    parts.append(_roof(plan, rect, top))
    if plan.roof in ("gable", "hip") and rng.random() < 0.6:
        x, y = rng.uniform(-0.3, 0.3) * plan.width, rng.uniform(0.3, 0.7) * plan.depth
        parts.append(box((x - 0.4, y - 0.4, x + 0.4, y + 0.4), top, top + plan.rise + 0.8, (0.45, 0.28, 0.22)))
    if plan.roof == "flat":
        for _ in range(int(rng.integers(0, 4))):
            x, y = rng.uniform(-0.35, 0.35) * plan.width, rng.uniform(0.15, 0.85) * plan.depth
            a, b = rng.uniform(0.5, 2.0, 2)
            gray = float(rng.uniform(0.3, 0.8))
            parts.append(box((x - a, y - b, x + a, y + b), top, top + rng.uniform(0.8, 2.6), (gray, gray, gray)))
    if plan.storeys >= 2 and rng.random() < 0.35:
        parts += _balconies(rng, plan)
    if rng.random() < 0.3:  # porch, garage or annex
        width, height = rng.uniform(0.2, 0.45) * plan.width, first * rng.uniform(0.75, 0.95)
        x = rng.uniform(-0.5, 0.5) * (plan.width - width)
        out = rng.uniform(0.3, 1.2)
        color = plan.wall if rng.random() < 0.5 else plan.roof_color
        parts.append(box((x - width / 2, -out, x + width / 2, 0.5), -FOOT_M, height, color))
    return merge(parts)


def _walls(rect: Rect, bottom: float, top: float, facade: int, color: Color, bay_m: float, storey_m: float) -> Surface:
    sides = frustum_sides(rect, rect, bottom, top)
    width = np.linalg.norm(sides[:, 1] - sides[:, 0], axis=-1)
    tiles = np.stack([np.maximum(np.round(width / bay_m), 1), np.full(4, (top - bottom) / storey_m)], axis=-1)
    return quads(sides, facade, color, tiles)


def _roof(plan: BuildingPlan, rect: Rect, top: float) -> Surface:
    x0, y0, x1, y1 = rect
    if plan.roof == "gable":
        eaves = (x0 - 0.3, y0 - 0.3, x1 + 0.3, y1 + 0.3)
        return gable_roof(eaves, top - 0.1, plan.rise, plan.wall, plan.roof_color)
    if plan.roof == "hip":
        inset = 0.48 * min(x1 - x0, y1 - y0)
        eaves = (x0 - 0.3, y0 - 0.3, x1 + 0.3, y1 + 0.3)
        ridge = (x0 + inset, y0 + inset, x1 - inset, y1 - inset)
        return quads(
            frustum_sides(eaves, ridge, top - 0.1, top + plan.rise), Material.ROOF, plan.roof_color, (2.0, 1.0)
        )
    if plan.roof == "shed":
        low, high = top, top + 0.35 * plan.rise
        slope = np.array([[[x0, y1, high], [x0, y0, low], [x1, y0, low], [x1, y1, high]]])
        ends = np.array([
            [[x0, y1, high], [x0, y1, low], [x0, y0, low], [x0, y0, low]],
            [[x1, y0, low], [x1, y0, low], [x1, y1, low], [x1, y1, high]],
            [[x1, y1, high], [x1, y1, low], [x0, y1, low], [x0, y1, high]],
        ])  # fmt: skip
        return merge([quads(slope, facades.CORRUGATED, plan.roof_color), quads(ends, facades.CORRUGATED, plan.wall)])
    if plan.roof == "saw":
        count = max(2, round((x1 - x0) / 7))
        edges = np.linspace(x0, x1, count + 1)
        high = top + 2.0
        sheds = [[[a, y0, top], [b, y0, high], [b, y1, high], [a, y1, top]] for a, b in pairwise(edges)]
        drops = [[[b, y1, high], [b, y0, high], [b, y0, top], [b, y1, top]] for b in edges[1:]]
        faces = [[[b, y0, high], [a, y0, top], [b, y0, top], [b, y0, top]] for a, b in pairwise(edges)]
        return merge(
            [
                quads(np.array(sheds), facades.CORRUGATED, plan.roof_color, (3.0, 3.0)),
                quads(np.array(drops), Material.GLASS, plan.wall),
                quads(np.array(faces), Material.PLAIN, plan.wall),
                quads(rectangle(rect, top), Material.PLAIN, plan.roof_color),
            ]
        )
    return merge(
        [
            quads(frustum_sides(rect, rect, top, top + 0.5), Material.PLAIN, plan.wall),
            quads(rectangle(rect, top + 0.45), Material.PLAIN, plan.roof_color),
        ]
    )


def _balconies(rng: np.random.Generator, plan: BuildingPlan) -> list[Surface]:
    count = int(rng.integers(1, 3))
    color = paint(rng, rng.random(), (0.0, 0.5), (0.3, 0.9))
    places = rng.uniform(-0.4, 0.4, count) * plan.width
    return [
        box((x - 1.1, -1.0, x + 1.1, 0.0), storey * plan.storey_m, storey * plan.storey_m + 1.0, color)
        for x in places
        for storey in range(1, min(plan.storeys, 5))
    ]
