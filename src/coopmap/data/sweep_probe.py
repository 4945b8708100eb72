"""Whether sweeps hold meters in the LiDAR's frame: told from a few of them, before anything is learned from them.

The metadata have two witnesses: the road, which lies as far below the LiDAR as calibration says, and the boxes of the
vehicles around, which hold points. The road tells the unit and what points down, the boxes tell left from right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from coopmap.data.depth_meaning import UNITS
from coopmap.data.opv2v import AgentMetadata, FrameError, SplitIndex, read_agent
from coopmap.data.opv2v.lidar import drop_own_body
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.suspicion import Suspicion
from coopmap.data.vehicles import FLOOR_M, MARGIN_M
from coopmap.geometry.boxes import points_in_boxes
from coopmap.geometry.se3_numpy import relative_pose

FRAMES, AGENTS_PER_FRAME = 4, 2
LEAST_POINTS, LEAST_ROAD_POINTS = 500, 50
"""Sweeps of fewer say nothing."""

ROAD_BELOW_DEG = (9.0, 32.0)
"""Directions below the horizon in which most points lie on the road: 3 to 12 m away from a LiDAR at 1.9 m. Angles are
the same in every unit. Cars and walls stand farther up, the own body further down."""
ROAD_WITHIN = 0.15
"""Relative difference up to which a point is at the height of a road that may slope."""
TRUSTED_SHARE = 0.5
"""Points that have to be on the road, and boxes that have to hold points, for a reading to be believed. Of
synthetic sweeps of every style of street, on slopes of 12 degrees and of 16 beams, 0.78 to 0.97 of the points are in
the median, of no single sweep fewer than 0.5; of recorded ones 0.92."""
CLEARLY_MORE = 0.25
LEAST_AGREEING = 0.1
LEAST_SWEEPS = 3
"""Fewer refuse nothing."""
CERTAIN_FACTOR, UNIT_FACTOR = 1.5, 1.25
"""The road tells units; a factor nearer to 1 may be a wrong height of the LiDAR as well. What is as near to a unit is
called by its name."""

DOWN = {
    "z points down": (1, -1),
    "y points down": (0, 1),
    "y points up": (0, -1),
    "x points down": (2, 1),
    "x points up": (2, -1),
}
"""What files may hold instead of a z that points up: column and sign of what points down, as :func:`read_sweep` gives
it: y, -z and x of the file."""

TURNED: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "y points left": ((0, 1, 2), (-1, 1, 1)),
    "x points backward and y left": ((0, 1, 2), (-1, 1, -1)),
    "x points right and y forward": ((2, 1, 0), (1, 1, 1)),
}
"""What files may hold instead of x forward and y right: order of these columns, and their signs."""
BOX_RANGE_M = (4.0, 30.0)
POINTS_IN_BOX = 3
LEAST_BOXES = 20
LEAST_TELLING, TELLING_RATIO = 8, 4
"""Boxes that hold points in one reading only, and how many more of these speak for it than against it."""
LEAST_HIT, MOSTLY_HIT = 0.3, 0.7
"""Of synthetic boxes 0.93 to 0.99 hold points, of recorded ones all."""

REMEDY = "Write meters in the LiDAR's frame, x forward, y right and z up (CARLA's axes), as docs/data.md has it"


@dataclass(frozen=True, eq=False)
class _Look:
    """A sweep, without the car's own body, and what the metadata say."""

    path: Path
    points: Float32[np.ndarray, "n 3"]
    metadata: AgentMetadata


def suspect_sweeps(index: SplitIndex) -> Suspicion | None:
    """What speaks against a few sweeps of a split; ``None`` if nothing does, or none of them can be read."""
    looks = list(_looks(index))
    if not looks:
        return None
    return _by_road(looks) or _by_boxes(looks)


def _looks(index: SplitIndex) -> Iterator[_Look]:
    """A few cars in a few frames, as far as they can be read: what cannot is reported when it is needed."""
    for number in np.unique(np.linspace(0, len(index) - 1, FRAMES).round().astype(int)):
        ref = index.frame(int(number))
        for agent in ref.agents[:AGENTS_PER_FRAME]:
            path = index.lidar_path(ref, agent)
            try:
                metadata = read_agent(index.yaml_path(ref, agent))
                points = drop_own_body(read_sweep(path))
            except FrameError:
                continue
            if len(points) >= LEAST_POINTS and not metadata.is_rsu:  # a unit's height is no more than an estimate
                yield _Look(path, points, metadata)


def _by_road(looks: Sequence[_Look]) -> Suspicion | None:
    """Whether the road is where calibration has it, and if not, what else explains the sweeps."""
    heights = [_heights(look) for look in looks]
    share = _median_share(heights)
    if share >= TRUSTED_SHARE:
        return None
    factor = float(np.median([np.median(each) for each in heights if len(each)] or [1.0]))
    scaled = _median_share(heights, factor)
    turned = {words: _median_share([_heights(look, *down) for look in looks]) for words, down in DOWN.items()}
    words = max(turned, key=lambda each: turned[each])
    low, high = ROAD_BELOW_DEG
    points = f"of the points {low:.0f} to {high:.0f} degrees below the horizon"
    road = f"the road, by calibration {looks[0].metadata.rig.ground_height_m:.2f} m below the LiDAR"
    best = max(scaled, turned[words])
    if best >= TRUSTED_SHARE and best > share + CLEARLY_MORE:
        found = f"the sweeps are in {_unit(factor)}" if scaled == best else f"{words} in the sweeps"
        reason = f"by {road}, {found} ({best:.0%} {points} agree; as stored {share:.0%})"
        remedy = f"{REMEDY}, or correct 'lidar_pose' and 'true_ego_pos'" if scaled == best else REMEDY
        is_certain = scaled < best or not _may_be_meters(looks, factor)
        return Suspicion(looks[0].path, reason, remedy, is_certain and len(looks) >= LEAST_SWEEPS)
    if share < LEAST_AGREEING and np.median([len(each) for each in heights]) >= LEAST_ROAD_POINTS:
        return Suspicion(looks[0].path, f"only {share:.0%} {points} lie on {road}", REMEDY, is_certain=False)
    return None


def _may_be_meters(looks: Sequence[_Look], factor: float) -> bool:
    """Whether the LiDAR's height may be wrong instead: the factor is near 1, or vehicles are where they are listed."""
    hit = np.concatenate([_hit(look) for look in looks])
    return abs(np.log(factor)) < np.log(CERTAIN_FACTOR) or (len(hit) >= LEAST_BOXES and hit.mean() > MOSTLY_HIT)


def _heights(look: _Look, column: int = 1, sign: int = 1) -> Float[np.ndarray, " m"]:
    """How far below the LiDAR the points are that should be on the road, over the LiDAR's height."""
    down = sign * look.points[:, column]
    across, along = (look.points[:, other] for other in range(3) if other != column)
    low, high = np.tan(np.deg2rad(ROAD_BELOW_DEG))
    level = np.hypot(across, along)
    return down[(down > low * level) & (down < high * level)] / look.metadata.rig.ground_height_m


def _median_share(heights: Sequence[Float[np.ndarray, " _"]], factor: float = 1.0) -> float:
    """Share of a sweep's points that are on the road, of sweeps in a unit of so many per meter."""
    return float(np.median([np.mean(np.abs(h / factor - 1) < ROAD_WITHIN) if len(h) else 0.0 for h in heights]))


def _unit(factor: float) -> str:
    near = [name for name, size in UNITS.items() if abs(np.log(factor / size)) < np.log(UNIT_FACTOR)]
    return near[0] if near and near[0] != "meters" else f"{factor:.2g} x meters"


def _by_boxes(looks: Sequence[_Look]) -> Suspicion | None:
    """Whether vehicles are where the metadata list them."""
    hit = np.concatenate([_hit(look) for look in looks])
    for words, (columns, signs) in TURNED.items():
        turned = np.concatenate([_hit(look, columns, signs) for look in looks])
        gained, lost = (turned & ~hit).sum(), (hit & ~turned).sum()
        if gained >= LEAST_TELLING and gained >= TELLING_RATIO * lost and turned.mean() >= TRUSTED_SHARE:
            reason = (
                f"by the vehicles listed around the cars, {words} in the sweeps: {turned.sum()} of {len(hit)} then "
            )
            reason += f"hold points, as stored {hit.sum()}"
            return Suspicion(looks[0].path, reason, REMEDY, is_certain=False)
    if len(hit) >= LEAST_BOXES and hit.mean() < LEAST_HIT:
        reason = f"only {hit.sum()} of {len(hit)} vehicles that the metadata list nearby hold points of the sweeps"
        return Suspicion(looks[0].path, reason, REMEDY, is_certain=False)
    return None


def _hit(
    look: _Look, columns: Sequence[int] = (0, 1, 2), signs: Sequence[int] = (1, 1, 1)
) -> Bool[np.ndarray, " boxes"]:
    """Which of the vehicles nearby hold points."""
    vehicles = look.metadata.vehicles
    if vehicles is None or not len(vehicles.ids):
        return np.zeros(0, bool)
    agent_from_box = relative_pose(look.metadata.pose, vehicles.pose)
    distance = np.linalg.norm(agent_from_box[:, :3, 3], axis=1)
    near = (distance > BOX_RANGE_M[0]) & (distance < BOX_RANGE_M[1])
    points = look.points[:, columns] * np.array(signs, np.float32)
    inside = points_in_boxes(points, agent_from_box[near], vehicles.half_extents[near], MARGIN_M, FLOOR_M)
    return np.array([len(each) >= POINTS_IN_BOX for each in inside], bool)
