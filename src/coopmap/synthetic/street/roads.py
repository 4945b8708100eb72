"""Roads of a street scene: straight or an arc, with lanes, parking and sidewalks, and how they meet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.street.styles import Style

SPREAD_M = 78.0
"""Roads run this far from the meeting place."""

_CROSSING_SHARE = 0.85
"""Of cars on one road, at least 40 % of pairs head the same way; in OPV2V 20 % do, and 33 % cross."""


@dataclass(frozen=True)
class Road:
    """A road of constant curvature; ``along`` is 0 at ``origin``, ``across`` is positive to the right (CARLA axes).

    Attributes:
        origin: a point of its middle.
        heading: direction there, radians.
        curvature: 1/m, positive to the right.
        along: first and last meter.
        lanes: per direction.
        lane_m: width of a lane.
        median_m: width of what separates the directions.
        parking_m: width of a parking strip on either side, 0 for none.
        sidewalk_m: width of the sidewalk on either side, 0 for none.
    """

    origin: tuple[float, float]
    heading: float
    curvature: float
    along: tuple[float, float]
    lanes: int
    lane_m: float
    median_m: float
    parking_m: float
    sidewalk_m: float

    @property
    def lanes_half_m(self) -> float:
        """From the middle to the outer edge of the lanes."""
        return self.median_m / 2 + self.lanes * self.lane_m

    @property
    def half_m(self) -> float:
        """From the middle to the curb."""
        return self.lanes_half_m + self.parking_m

    @property
    def reach_m(self) -> float:
        """From the middle to the outer edge of the sidewalk."""
        return self.half_m + self.sidewalk_m

    def place(
        self, along: Float[np.ndarray, "*b"], across: Float[np.ndarray, "*b"] | float = 0.0
    ) -> tuple[Float[np.ndarray, "*b 2"], Float[np.ndarray, "*b"]]:
        """Positions, and heading of the road there (radians)."""
        along = np.asarray(along, dtype=np.float64)
        forward, right = _axes(self.heading)
        bend = self.curvature
        if bend == 0.0:
            ahead, aside = along, np.zeros_like(along)
        else:
            ahead, aside = np.sin(bend * along) / bend, (1 - np.cos(bend * along)) / bend
        heading = self.heading + bend * along
        to_right = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
        middle = np.asarray(self.origin) + ahead[..., None] * forward + aside[..., None] * right
        return middle + np.asarray(across)[..., None] * to_right, heading

    def locate(self, xy: Float[np.ndarray, "*b 2"]) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b"]]:
        """``along`` and ``across`` of some places."""
        forward, right = _axes(self.heading)
        offset = np.asarray(xy) - self.origin
        if self.curvature == 0.0:
            return offset @ forward, offset @ right
        sign, radius = np.sign(self.curvature), 1 / self.curvature
        inward = (right * radius - offset) * sign
        turned = np.arctan2(-(inward @ forward), inward @ right)
        return turned / self.curvature, radius - sign * np.linalg.norm(inward, axis=-1)

    def covers(self, xy: Float[np.ndarray, "*b 2"], margin_m: float) -> np.ndarray:
        """Whether places lie on the road or its sidewalks, widened by a margin."""
        along, across = self.locate(xy)
        inside = (along > self.along[0] - margin_m) & (along < self.along[1] + margin_m)
        return inside & (np.abs(across) < self.reach_m + margin_m)


@lru_cache(maxsize=8)
def _axes(heading: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])


def draw_roads(rng: np.random.Generator, style: Style) -> tuple[Road, ...]:
    """Roads through a meeting place at the origin: one, or one that others cross."""
    heading = rng.uniform(-np.pi, np.pi)
    bend = 0.0 if rng.random() < style.straight else rng.choice([-1.0, 1.0]) / rng.uniform(*style.bend_radius_m)
    main = _road(rng, style, np.zeros(2), heading, bend, (-SPREAD_M, SPREAD_M), style.lanes)
    roads = [main]
    if rng.random() < _CROSSING_SHARE:
        places = [rng.uniform(-14, 14)]
        if rng.random() < style.second_crossing:
            places.append(places[0] + rng.choice([-1, 1]) * rng.uniform(30, 46))
        for place in places:
            spot, there = main.place(np.array(place))
            angle = rng.normal(90, style.crooked_deg)
            ends = (-SPREAD_M, SPREAD_M) if rng.random() < 0.7 else (0.0, SPREAD_M)
            side_bend = 0.0 if rng.random() < style.straight else rng.choice([-1.0, 1.0]) / rng.uniform(45, 120)
            turn = np.deg2rad(np.clip(angle, 50, 130)) * rng.choice([-1, 1])
            roads.append(_road(rng, style, spot, float(there + turn), side_bend, ends, style.side_lanes))
    return tuple(roads)


def _road(
    rng: np.random.Generator,
    style: Style,
    origin: np.ndarray,
    heading: float,
    bend: float,
    ends: tuple[float, float],
    lanes: tuple[int, ...],
) -> Road:
    longest = np.inf if bend == 0.0 else 1.1 / abs(bend)  # an arc of 63 degrees either way meets nothing again
    parking = 2.2 if rng.random() < style.parking else 0.0
    return Road(
        (float(origin[0]), float(origin[1])),
        float(heading),
        float(bend),
        (max(ends[0], -longest), min(ends[1], longest)),
        int(rng.choice(lanes)),
        float(rng.uniform(*style.lane_m)),
        float(rng.uniform(*style.median_m)),
        parking,
        float(rng.uniform(*style.sidewalk_m)),
    )
