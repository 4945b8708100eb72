"""Styles of streets: ranges that everything about a street is drawn from. Which styles exist is part of the config."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """A kind of neighborhood. Shares are probabilities; pairs are the ends of uniform ranges.

    Attributes:
        lanes: choices of lanes per direction of the main road.
        side_lanes: the same of roads that cross it.
        lane_m: width of a lane.
        median_m: width between the directions.
        sidewalk_m: width of sidewalks.
        parking: share of roads with parking strips.
        straight: share of roads without a bend.
        bend_radius_m: radius of the others.
        second_crossing: share of junctions that have another one near.
        crooked_deg: standard deviation of crossing angles from 90 degrees.
        front_m: width of a building along the road.
        depth_m: its depth.
        gap_m: between neighbors.
        setback_m: from the sidewalk to the front.
        storeys: number of storeys.
        storey_m: height of one.
        facades: kinds of walls, see :mod:`coopmap.synthetic.street.facades`.
        pitched: share of pitched roofs.
        saturation: of wall colors.
        vacant: share of lots without a building.
        verge: grounds beside the road, see :mod:`coopmap.synthetic.street.ground`.
        trees: per 10 m of roadside.
        yard_trees: per lot.
        parked: share of parking places taken.
        poles: per 10 m of roadside.
        clutter: per 10 m of roadside, by kind, see :mod:`coopmap.synthetic.street.furniture`.
        traffic: fewest and most other moving cars.
        skyline: share of streets with high buildings far off.
        colorful: share of streets whose walls have all hues, rather than similar ones.
    """

    lanes: tuple[int, ...]
    side_lanes: tuple[int, ...]
    lane_m: Range
    median_m: Range
    sidewalk_m: Range
    parking: float
    straight: float
    bend_radius_m: Range
    second_crossing: float
    crooked_deg: float
    front_m: Range
    depth_m: Range
    gap_m: Range
    setback_m: Range
    storeys: tuple[int, int]
    storey_m: Range
    facades: tuple[str, ...]
    pitched: float
    saturation: Range
    vacant: float
    verge: tuple[str, ...]
    trees: float
    yard_trees: float
    parked: float
    poles: float
    clutter: dict[str, float]
    traffic: tuple[int, int]
    skyline: float
    colorful: float = 0.3


STYLES = {
    "grid": Style(
        lanes=(1, 1, 2), side_lanes=(1, 1, 2), lane_m=(3.2, 3.7), median_m=(0.2, 0.2), sidewalk_m=(2.0, 4.5),
        parking=0.7, straight=0.95, bend_radius_m=(90, 160), second_crossing=0.5, crooked_deg=3.0,
        front_m=(9, 22), depth_m=(10, 18), gap_m=(0.0, 3.5), setback_m=(0.3, 5.0), storeys=(2, 8), storey_m=(2.9, 3.6),
        facades=("plaster", "brick", "office", "glass", "panel"), pitched=0.3, saturation=(0.1, 0.55), vacant=0.1,
        verge=("paving", "grass", "asphalt"), trees=0.4, yard_trees=0.3, parked=0.35, poles=0.3,
        clutter={"sign": 0.2, "kiosk": 0.08, "hydrant": 0.2, "billboard": 0.06, "bin": 0.25},
        traffic=(0, 5), skyline=0.5,
    ),
    "suburb": Style(
        lanes=(1,), side_lanes=(1,), lane_m=(2.9, 3.6), median_m=(0.0, 0.2), sidewalk_m=(0.0, 2.0),
        parking=0.3, straight=0.55, bend_radius_m=(45, 110), second_crossing=0.25, crooked_deg=10.0,
        front_m=(8, 14), depth_m=(8, 12), gap_m=(5, 13), setback_m=(4, 10), storeys=(1, 2), storey_m=(2.7, 3.1),
        facades=("plaster", "planks", "brick"), pitched=0.9, saturation=(0.05, 0.5), vacant=0.12,
        verge=("grass", "grass", "dry"), trees=0.35, yard_trees=1.8, parked=0.3, poles=0.3,
        clutter={"hedge": 0.5, "fence": 0.5, "mailbox": 0.25, "bin": 0.3, "bush": 0.7, "sign": 0.08},
        traffic=(0, 3), skyline=0.05,
    ),
    "industrial": Style(
        lanes=(1, 1, 2), side_lanes=(1,), lane_m=(3.4, 4.2), median_m=(0.0, 0.3), sidewalk_m=(0.0, 1.8),
        parking=0.15, straight=0.85, bend_radius_m=(60, 140), second_crossing=0.2, crooked_deg=5.0,
        front_m=(22, 48), depth_m=(18, 34), gap_m=(5, 18), setback_m=(3, 14), storeys=(2, 4), storey_m=(3.2, 4.6),
        facades=("corrugated", "blank", "panel", "corrugated", "brick"), pitched=0.15, saturation=(0.0, 0.45),
        vacant=0.25, verge=("asphalt", "concrete", "gravel", "dry"), trees=0.06, yard_trees=0.1, parked=0.3, poles=0.35,
        clutter={"container": 0.45, "fence": 0.4, "barrier": 0.15, "tank": 0.08, "pallet": 0.35, "sign": 0.12},
        traffic=(0, 4), skyline=0.1,
    ),
    "oldtown": Style(
        lanes=(1,), side_lanes=(1,), lane_m=(2.7, 3.2), median_m=(0.0, 0.0), sidewalk_m=(0.8, 2.2),
        parking=0.3, straight=0.35, bend_radius_m=(40, 90), second_crossing=0.55, crooked_deg=18.0,
        front_m=(5, 11), depth_m=(8, 13), gap_m=(-0.2, 0.3), setback_m=(0.0, 0.9), storeys=(2, 5), storey_m=(2.6, 3.4),
        facades=("plaster", "timber", "stone", "brick", "plaster"), pitched=0.85, saturation=(0.15, 0.7), vacant=0.06,
        verge=("cobble", "paving", "cobble"), trees=0.08, yard_trees=0.0, parked=0.3, poles=0.25,
        clutter={"bollard": 0.7, "awning": 0.25, "planter": 0.4, "bin": 0.15, "sign": 0.15, "kiosk": 0.04},
        traffic=(0, 2), skyline=0.1,
    ),
    "highway": Style(
        lanes=(2, 2, 3), side_lanes=(1, 2), lane_m=(3.5, 3.8), median_m=(1.2, 4.0), sidewalk_m=(0.0, 0.0),
        parking=0.0, straight=0.6, bend_radius_m=(110, 260), second_crossing=0.05, crooked_deg=8.0,
        front_m=(12, 34), depth_m=(10, 22), gap_m=(14, 50), setback_m=(10, 32), storeys=(1, 6), storey_m=(3.0, 4.2),
        facades=("corrugated", "office", "blank", "plaster", "panel"), pitched=0.3, saturation=(0.0, 0.5), vacant=0.5,
        verge=("grass", "dry", "gravel", "grass"), trees=0.35, yard_trees=0.8, parked=0.1, poles=0.25,
        clutter={"guardrail": 1.0, "noise_wall": 0.25, "gantry": 0.03, "sign": 0.25, "billboard": 0.06, "bush": 0.7},
        traffic=(1, 8), skyline=0.3,
    ),
    "market": Style(
        lanes=(1,), side_lanes=(1,), lane_m=(3.0, 3.4), median_m=(0.0, 0.0), sidewalk_m=(1.5, 3.0),
        parking=0.2, straight=0.9, bend_radius_m=(60, 120), second_crossing=0.3, crooked_deg=5.0,
        front_m=(4, 8), depth_m=(6, 10), gap_m=(0.5, 3.0), setback_m=(0.5, 3.0), storeys=(1, 3), storey_m=(2.8, 3.2),
        facades=("plaster", "blank"), pitched=0.5, saturation=(0.7, 1.0), vacant=0.05,
        verge=("paving",), trees=0.0, yard_trees=0.0, parked=0.2, poles=0.0,
        clutter={"kiosk": 0.3, "billboard": 0.15, "awning": 0.3},
        traffic=(0, 1), skyline=0.0, colorful=1.0,
    ),
}  # fmt: skip
