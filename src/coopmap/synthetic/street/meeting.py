"""Where cars meet: positions and headings of agents drawn from OPV2V's statistics or uniformly, and other traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coopmap.synthetic.street.roads import Road

DISTANCE_BIN_M, HEADING_EDGES_DEG = 5.0, (45.0, 135.0)
OPV2V_DISTANCES = (0, 0, 19, 42, 106, 73, 64, 71, 46, 122, 43, 38, 17, 19)
OPV2V_HEADINGS = (135, 218, 307)
"""Pairs of agents within 70 m of each other, by distance (bins of 5 m) and by the angle between their headings (same,
crossing, opposite): 660 pairs in the 4 scenarios of OPV2V's split ``test_culver_city``, counted from its metadata."""

_NEAREST_M = 7.0
_CANDIDATES = 1024
_REACH = 46 / 70
"""How far from the meeting place agents are put along the roads, as a share of how far apart they may be."""
_ROUNDS, _STEP = 15, 0.5
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Track:
    """A car that keeps to its lane at constant speed.

    Attributes:
        road: what it drives on.
        start_m: where along it.
        across_m: where across it.
        direction: 1 along the road, -1 against it.
        speed_mps: speed.
    """

    road: Road
    start_m: float
    across_m: float
    direction: int
    speed_mps: float

    def at(self, seconds: Float[np.ndarray, " f"]) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, " f"]]:
        """Positions and yaw (radians)."""
        xy, heading = self._place(self._along(seconds))
        return xy, heading + (0.0 if self.direction > 0 else np.pi)

    def ahead(self, second: float, seconds: Float[np.ndarray, " p"]) -> Float[np.ndarray, "p 2"]:
        """Waypoints on the lane after a moment, as far apart as the road's middle is passed at the car's speed."""
        return self._place(self._along(second) + self.direction * self.speed_mps * seconds)[0]

    def _along(self, seconds: Float[np.ndarray, "*f"] | float) -> Float[np.ndarray, "*f"]:
        rate = _rate_along(self.direction * self.speed_mps, self.across_m, self.road.curvature)
        return self.start_m + rate * np.asarray(seconds)

    def _place(self, along: Float[np.ndarray, " f"]) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, " f"]]:
        return self.road.place(along, np.full(np.shape(along), self.across_m))


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Cars at random on the lanes, ``(k, n)`` each; ``xy`` is ``(k, n, f, 2)``, ``yaw`` at the first moment.

    ``stays``: on the road at all moments. Drawn as all others are, so that streets of one frame stay as they are.
    """

    road: np.ndarray
    start: np.ndarray
    across: np.ndarray
    direction: np.ndarray
    speed: np.ndarray
    xy: np.ndarray
    yaw: np.ndarray
    stays: np.ndarray

    def tracks(self, roads: Sequence[Road], chosen: int) -> list[Track]:
        columns = (self.road, self.start, self.across, self.direction, self.speed)
        return [
            Track(roads[int(road)], float(start), float(across), int(direction), float(speed))
            for road, start, across, direction, speed in zip(*(column[chosen] for column in columns), strict=True)
        ]


def draw_agents(
    rng: np.random.Generator,
    roads: Sequence[Road],
    count: int,
    statistics: str,
    farthest_m: float,
    seconds: Float[np.ndarray, " f"],
) -> list[Track]:
    """Agents of a scenario.

    Many sets of cars are put on the lanes at random; one of them is chosen, with odds that make distances and angles
    of pairs as frequent as asked for, as far as the roads allow: of four cars on one road, two head the same way.

    Args:
        rng: decides.
        roads: of the scene.
        count: number of agents.
        statistics: ``opv2v`` or ``uniform``.
        farthest_m: no two are farther apart.
        seconds: moments at which this holds, no two are nearer than 7 m, and all are on their roads.

    Raises:
        RuntimeError: if no set fits.
    """
    for attempt in range(2 * _TRIES):  # where no set of cars that drive fits, they stand
        pace = 1.0 if attempt < _TRIES else 0.0
        found = _draw(rng, roads, (_CANDIDATES, count), seconds, _REACH * farthest_m, pace)
        first, second = np.triu_indices(count, 1)
        gap = np.linalg.norm(found.xy[:, first] - found.xy[:, second], axis=-1)
        fits = (gap > _NEAREST_M).all(axis=(1, 2)) & (gap < farthest_m).all(axis=(1, 2)) & found.stays.all(axis=1)
        if not fits.any():
            continue
        turn = np.abs(np.rad2deg(_wrapped(found.yaw[:, first] - found.yaw[:, second])))
        odds = _log_odds(gap[fits, :, 0], turn[fits], statistics)
        return found.tracks(roads, int(np.flatnonzero(fits)[np.argmax(odds + rng.gumbel(size=len(odds)))]))
    raise RuntimeError(f"no room for {count} agents within {farthest_m:g} m of each other on this street")


def _log_odds(gap_m: np.ndarray, turn_deg: np.ndarray, statistics: str) -> Float[np.ndarray, " k"]:
    """Log odds of sets of cars, under which their pairs have the distances and angles asked for, as far as they can.

    Odds are a product over a set's pairs of one factor per bin (the distribution nearest to the offered one that has
    the wanted means is of this form); the factors are found by iterative scaling.

    Args:
        gap_m: ``(k, p)`` distances of the pairs of each set.
        turn_deg: the same of angles between headings.
        statistics: ``opv2v`` or ``uniform``.
    """
    odds = np.zeros(len(gap_m))
    if gap_m.shape[1] == 0:
        return odds
    uniform = statistics == "uniform"
    distances = np.array((0, *(1,) * 13) if uniform else OPV2V_DISTANCES, dtype=float)
    headings = np.array((1, 2, 1) if uniform else OPV2V_HEADINGS, dtype=float)
    kinds = []
    for index, wanted in (
        (np.clip(gap_m / DISTANCE_BIN_M, 0, len(distances) - 1).astype(int), distances),
        (np.digitize(turn_deg, HEADING_EDGES_DEG), headings),
    ):
        shares = np.stack([(index == each).mean(axis=1) for each in range(len(wanted))], axis=1)
        possible = wanted * (shares.sum(axis=0) > 0)
        kinds.append((shares, possible / max(possible.sum(), 1.0)))
    for _ in range(_ROUNDS):
        for shares, wanted in kinds:
            weight = np.exp(odds - odds.max())
            offered = weight @ shares / weight.sum()
            odds = odds + _STEP * gap_m.shape[1] * shares @ np.log((wanted + 0.004) / (offered + 0.004))
    return odds


def _draw(
    rng: np.random.Generator,
    roads: Sequence[Road],
    size: tuple[int, int],
    seconds: np.ndarray,
    reach_m: float,
    pace: float = 1.0,
) -> _Candidates:
    road = rng.integers(len(roads), size=size)
    low = np.array([max(each.along[0], -reach_m) for each in roads])[road]
    high = np.array([min(each.along[1], reach_m) for each in roads])[road]
    lanes = np.array([each.lanes for each in roads])[road]
    start = rng.uniform(low, high)
    direction = rng.choice([-1, 1], size=size)
    lane = np.floor(rng.random(size) * lanes) + 0.5
    median = np.array([each.median_m for each in roads])[road]
    width = np.array([each.lane_m for each in roads])[road]
    across = direction * (median / 2 + lane * width) + rng.normal(0, 0.15, size)
    speed = pace * np.where(rng.random(size) < 0.3, 0.0, rng.uniform(2, 12, size))
    curvature = np.array([each.curvature for each in roads])[road]
    along = start[..., None] + _rate_along(direction * speed, across, curvature)[..., None] * seconds
    ends = np.array([each.along for each in roads])[road]
    stays = ((along >= ends[..., :1]) & (along <= ends[..., 1:])).all(axis=-1)
    xy, yaw = np.empty((*size, len(seconds), 2)), np.empty(size)
    for index, each in enumerate(roads):
        here = road == index
        xy[here], heading = each.place(along[here], across[here][:, None])
        yaw[here] = heading[:, 0]
    return _Candidates(road, start, across, direction, speed, xy, yaw + np.where(direction > 0, 0.0, np.pi), stays)


def _rate_along(
    speed_mps: Float[np.ndarray, "*b"] | float, across_m: Float[np.ndarray, "*b"] | float, curvature: np.ndarray | float
) -> Float[np.ndarray, "*b"]:
    """How fast ``along`` changes, which is measured in the middle of the road: lanes inside a bend are shorter."""
    return np.asarray(speed_mps / (1 - across_m * curvature))


def draw_traffic(
    rng: np.random.Generator, roads: Sequence[Road], agents: Sequence[Track], count: int, seconds: np.ndarray
) -> list[Track]:
    """Up to ``count`` other cars, on their roads and clear of the agents and of one another at the given moments."""
    taken = [track.at(seconds)[0] for track in agents]
    chosen: list[Track] = []
    found = _draw(rng, roads, (4 * count, 1), seconds, 65.0)
    for index in range(4 * count):
        if len(chosen) == count:
            break
        xy = found.xy[index, 0]
        clear = all(np.linalg.norm(xy - other, axis=-1).min() > _NEAREST_M for other in taken)
        if clear and found.stays[index, 0]:
            taken.append(xy)
            chosen += found.tracks(roads, index)
    return chosen


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
