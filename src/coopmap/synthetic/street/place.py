"""Where things stand along the roads of a street."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.buildings import landmark
from coopmap.synthetic.cars import vivid
from coopmap.synthetic.street import facades, furniture
from coopmap.synthetic.street.houses import BuildingPlan, building, paint, plan_building
from coopmap.synthetic.street.roads import Road
from coopmap.synthetic.street.styles import Style
from coopmap.synthetic.surface import Surface, frustum_sides, quads, rectangle

EMPTY_M = 45.0
"""Nothing stands within this distance of the meeting place of an empty junction."""


@dataclass
class Site:
    """Things put so far: shape, place ``(x, y)`` and yaw; and the ground that they take, as rectangles.

    Attributes:
        roads: of the street.
        things: shape, x, y, yaw.
    """

    roads: Sequence[Road]
    things: list[tuple[Surface, float, float, float]] = field(default_factory=list)
    _taken: list[np.ndarray] = field(default_factory=list)

    def put(self, thing: Surface, xy: Float[np.ndarray, "2"], yaw: float) -> None:
        """Put a thing, without asking."""
        self.things.append((thing, float(xy[0]), float(xy[1]), float(yaw)))

    def free_of_roads(self, xy: Float[np.ndarray, "n 2"], margin_m: float = 0.3) -> bool:
        """Whether no place lies on a road or sidewalk."""
        return not any(road.covers(xy, margin_m).any() for road in self.roads)

    def free_of_things(self, corners: Float[np.ndarray, "4 2"]) -> bool:
        """Whether a rectangle overlaps none of those taken."""
        others = self._rectangles()
        (center, radius), (centers, reach) = _circle(corners), _circle(others)
        near = np.flatnonzero(np.linalg.norm(centers - center, axis=-1) < radius + reach)
        return not any(_overlap(corners, others[index]) for index in near)

    def take(self, corners: Float[np.ndarray, "4 2"]) -> None:
        """Remember a rectangle as taken."""
        self._taken.append(corners)

    def covered(self, xy: Float[np.ndarray, "n 2"], margin_m: float) -> np.ndarray:
        """Whether places lie on taken ground."""
        corners = self._rectangles()
        half = (corners[:, [1, 3]] - corners[:, :1]) / 2
        length = np.linalg.norm(half, axis=-1)
        offset = xy[:, None] - corners.mean(axis=1)
        aside = np.abs(np.einsum("nri,rai->nra", offset, half)) / length
        return (aside < length + margin_m).all(axis=-1).any(axis=-1)

    def _rectangles(self) -> Float[np.ndarray, "r 4 2"]:
        return np.array(self._taken).reshape(-1, 4, 2)


def _circle(corners: Float[np.ndarray, "*b 4 2"]) -> tuple[Float[np.ndarray, "*b 2"], Float[np.ndarray, "*b"]]:
    """Center and radius of the circle around a rectangle."""
    center = corners.mean(axis=-2)
    return center, np.linalg.norm(corners[..., 0, :] - center, axis=-1)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two rectangles overlap (separating axes)."""
    for corners in (a, b):
        for axis in (corners[1] - corners[0], corners[3] - corners[0]):
            first, second = a @ axis, b @ axis
            if first.max() <= second.min() or second.max() <= first.min():
                return False
    return True


def _footprint(road: Road, along: float, across: float, side: float, width: float, depth: float) -> np.ndarray:
    """Corners of a rectangle whose front runs along a road."""
    front, heading = road.place(np.array(along), np.array(side * across))
    forward = np.array([np.cos(heading), np.sin(heading)])
    out = side * np.array([-forward[1], forward[0]])
    half = forward * width / 2
    return np.array([front - half, front + half, front + half + out * depth, front - half + out * depth])


def place_buildings(rng: np.random.Generator, site: Site, style: Style, hard: str) -> None:
    """Buildings and landmarks along both sides of all roads."""
    # masonry is warm as a rule; now and then it is any color
    hue, spread = (
        (rng.random(), 0.4) if rng.random() < style.colorful else (rng.uniform(0.02, 0.13), rng.uniform(0.01, 0.08))
    )
    fixed = plan_building(rng, style, hue, (_uniform(rng, style.front_m), _uniform(rng, style.depth_m)))
    gap, setback = _uniform(rng, style.gap_m), _uniform(rng, style.setback_m)
    landmarks = 0 if hard != "none" else int(rng.integers(0, 4))
    for road in site.roads:
        for side in (1.0, -1.0):
            along = road.along[0] + rng.uniform(0, 8)
            while along < road.along[1]:
                plan = fixed if hard == "identical" else _plan(rng, style, hue + rng.normal(0, spread), hard, fixed)
                back = setback if hard == "identical" else _uniform(rng, style.setback_m)
                middle = along + plan.width / 2
                corners = _footprint(road, middle, road.reach_m + back, side, plan.width, plan.depth)
                along += plan.width + (gap if hard == "identical" else _uniform(rng, style.gap_m))
                if not _fits(site, corners, hard) or (hard != "identical" and rng.random() < style.vacant):
                    continue
                site.take(corners)
                front, heading = road.place(np.array(middle), np.array(side * (road.reach_m + back)))
                yaw = float(heading) + (0.0 if side > 0 else np.pi)
                if landmarks and rng.random() < 0.12 and min(plan.width, plan.depth) > 5:
                    landmarks -= 1
                    width = min(plan.width, plan.depth) - 0.6
                    site.put(landmark(int(rng.integers(6)), vivid(rng.random()), width), corners.mean(axis=0), yaw)
                else:
                    site.put(building(plan), front, yaw)


def _plan(rng: np.random.Generator, style: Style, hue: float, hard: str, fixed: BuildingPlan) -> BuildingPlan:
    plan = plan_building(rng, style, hue, (_uniform(rng, style.front_m), _uniform(rng, style.depth_m)))
    if hard != "blank":
        return plan
    return BuildingPlan(
        plan.width, plan.depth, fixed.storeys, fixed.storey_m, fixed.facade, fixed.facade, fixed.wall, fixed.wall,
        "flat", fixed.roof_color, fixed.rise, fixed.extras,
    )  # fmt: skip


def _fits(site: Site, corners: np.ndarray, hard: str) -> bool:
    edge = np.concatenate([corners, (corners + np.roll(corners, 1, axis=0)) / 2, corners.mean(axis=0, keepdims=True)])
    if hard == "empty" and np.linalg.norm(edge, axis=1).min() < EMPTY_M:
        return False
    return site.free_of_roads(edge, 0.15) and site.free_of_things(corners)


def place_backdrop(rng: np.random.Generator, site: Site, style: Style) -> None:
    """High buildings far off, on some streets."""
    if rng.random() >= style.skyline:
        return
    for _ in range(int(rng.integers(6, 30))):
        azimuth, radius = rng.uniform(-np.pi, np.pi), rng.uniform(100, 170)
        half = rng.uniform(6, 16, 2)
        rect = (-half[0], -half[1], half[0], half[1])
        height = rng.uniform(12, 70)
        tile = facades.FIRST_FACADE + int(rng.integers(facades.FACADES))
        color = paint(rng, rng.random(), style.saturation, (0.3, 0.9))
        tower = [
            quads(frustum_sides(rect, rect, -20.0, height), tile, color, (6.0, (height + 20) / 3.0)),
            quads(rectangle(rect, height), 0, color),
        ]
        place = radius * np.array([np.cos(azimuth), np.sin(azimuth)])
        for part in tower:
            site.put(part, place, azimuth + rng.normal(0, 0.3))


def place_furniture(rng: np.random.Generator, site: Site, style: Style, hard: str) -> None:
    """Trees, poles and clutter beside the roads and between buildings."""
    sparse = 0.0 if hard in ("blank", "empty") else 0.25 if hard == "identical" else float(rng.uniform(0.5, 1.6))
    hue = rng.choice([0.25, 0.25, 0.3, 0.1, 0.05])
    kinds: dict[str, tuple[float, list[Surface]]] = {
        "tree": (style.trees, [furniture.tree(rng, hue) for _ in range(5)]),
        "pole": (style.poles, [furniture.pole(rng) for _ in range(3)]),
    }
    kinds |= {
        kind: (rate, [furniture.CLUTTER[kind](rng) for _ in range(1 if hard == "identical" else 3)])
        for kind, rate in style.clutter.items()
        if rng.random() < 0.75
    }
    for kind, (rate, pool) in kinds.items():
        for road in site.roads:
            _line_road(rng, site, road, kind, rate * sparse, pool)
    pool = [furniture.tree(rng, hue, 9.0) for _ in range(5)] + [furniture.CLUTTER["bush"](rng) for _ in range(2)]
    _scatter(rng, site, style.yard_trees * sparse * 25, pool, 10.0, 70.0)
    _scatter(rng, site, 25.0 * (sparse > 0), pool, 75.0, 140.0)


def _line_road(rng: np.random.Generator, site: Site, road: Road, kind: str, rate: float, pool: list[Surface]) -> None:
    """Things of one kind along both sides of a road, ``rate`` per 10 m."""
    count = rng.poisson(rate * (road.along[1] - road.along[0]) / 10 * 2)
    along, side = rng.uniform(*road.along, count), rng.choice([-1.0, 1.0], count)
    at_curb = kind in ("pole", "bollard", "guardrail", "hydrant", "sign", "gantry", "barrier")
    out = 0.5 if at_curb else road.sidewalk_m + (1.6 if kind in ("container", "pallet", "tank") else 0.7)
    across = side * (road.half_m + out + np.abs(rng.normal(0, 0.1 if at_curb else 0.6, count)))
    xy, heading = road.place(along, across)
    others = [other for other in site.roads if other is not road]
    free = ~site.covered(xy, 0.4)
    for other in others:
        free &= ~other.covers(xy, 1.5)
    for place, yaw, keep in zip(xy, heading + np.where(side > 0, 0, np.pi), free, strict=True):
        if keep:
            site.put(pool[int(rng.integers(len(pool)))], place, yaw)


def _scatter(
    rng: np.random.Generator, site: Site, mean: float, pool: list[Surface], nearest_m: float, farthest_m: float
) -> None:
    """Things anywhere that is neither road nor building."""
    count = rng.poisson(mean)
    azimuth, radius = rng.uniform(-np.pi, np.pi, count), rng.uniform(nearest_m, farthest_m, count)
    xy = radius[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=-1)
    free = ~site.covered(xy, 1.0)
    for road in site.roads:
        free &= ~road.covers(xy, 1.2)
    for place in xy[free]:
        site.put(pool[int(rng.integers(len(pool)))], place, rng.uniform(-np.pi, np.pi))


def place_parked(rng: np.random.Generator, site: Site, style: Style, hard: str) -> list[tuple[np.ndarray, float]]:
    """Places and yaw of parked cars: in the strips along the roads, and on open ground behind the sidewalks."""
    share = 0.0 if hard == "empty" else style.parked * float(rng.uniform(0.2, 1.8))
    spots = []
    for road in site.roads:
        others = [other for other in site.roads if other is not road]
        for side in (1.0, -1.0):
            along = np.arange(road.along[0] + 4, road.along[1] - 4, 6.4)
            along = along[rng.random(len(along)) < share]
            in_strip = road.parking_m > 0
            across = road.half_m - 1.05 if in_strip else road.reach_m + rng.uniform(2.4, 4)
            xy, heading = road.place(along, np.full(along.shape, side * across))
            turn = 0.0 if in_strip or rng.random() < 0.4 else np.pi / 2
            for place, yaw in zip(xy, heading, strict=True):
                corners = place + 2.6 * np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
                if any(other.covers(corners, 2.0).any() for other in others):
                    continue
                if not in_strip and (site.covered(corners, 0.3).any() or rng.random() < 0.5):
                    continue
                if not in_strip:
                    site.take(corners)
                spots.append((place, float(yaw) + (0.0 if side > 0 else np.pi) + turn))
    return spots


def _uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return float(rng.uniform(*ends))
