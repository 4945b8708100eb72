"""Street grid, and the lanes that cars follow on it (right-hand traffic)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

ROAD_HALF_M = 5.2
PAVEMENT_M = 2.6
LANE_M = 1.75
"""Distance of a lane's center from the middle of the street."""

_STEP_M = 0.25
_CORNER_M = 7.0


@dataclass(frozen=True)
class StreetPlan:
    """Streets along x at the positions ``y`` and along y at the positions ``x``; together a closed grid."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " m"]

    @classmethod
    def random(cls, rng: np.random.Generator, size_m: float) -> StreetPlan:
        """Grid with blocks of about 50 m."""
        count = max(2, round(size_m / 50))
        spacing = size_m / count
        base = (np.arange(count) - (count - 1) / 2) * spacing
        return cls(base + rng.uniform(-4, 4, count), base + rng.uniform(-4, 4, count))

    def junctions(self) -> Float[np.ndarray, "k 2"]:
        """Crossings of the streets."""
        return np.stack(np.meshgrid(self.x, self.y, indexing="ij"), axis=-1).reshape(-1, 2)

    def segments(self) -> list[tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]]:
        """Stretches of street between neighboring junctions, as pairs of end points."""
        lengthwise = [
            (np.array([x0, y]), np.array([x1, y])) for y in self.y for x0, x1 in zip(self.x, self.x[1:], strict=False)
        ]
        crosswise = [
            (np.array([x, y0]), np.array([x, y1])) for x in self.x for y0, y1 in zip(self.y, self.y[1:], strict=False)
        ]
        return lengthwise + crosswise

    def random_lane(self, rng: np.random.Generator, blocks: int) -> Float[np.ndarray, "p 2"]:
        """Path of a car that turns at random over some blocks: points every 0.25 m, corners rounded."""
        node = np.array([rng.integers(len(self.x)), rng.integers(len(self.y))])
        nodes, heading = [node], np.zeros(2, dtype=int)
        for _ in range(blocks):
            moves = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
            ahead = node + moves
            inside = ((ahead >= 0) & (ahead < [len(self.x), len(self.y)])).all(axis=1)
            forward = (moves != -heading).any(axis=1)  # no U-turns
            heading = rng.choice(moves[inside & forward])
            node = node + heading
            nodes.append(node)
        return self._lane(np.array(nodes))

    def _lane(self, nodes: np.ndarray) -> Float[np.ndarray, "p 2"]:
        center = np.stack([self.x[nodes[:, 0]], self.y[nodes[:, 1]]], axis=-1)
        heading = np.sign(np.diff(center, axis=0))
        right = np.stack([-heading[:, 1], heading[:, 0]], axis=-1) * LANE_M
        straight = (heading[1:] == heading[:-1]).all(axis=1)
        inner = center[1:-1] + right[1:] + np.where(straight[:, None], 0.0, right[:-1])
        corners = np.concatenate([center[:1] + right[:1], inner, center[-1:] + right[-1:]])
        distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
        samples = np.arange(0.0, distance[-1], _STEP_M)
        path = np.stack([np.interp(samples, distance, corners[:, axis]) for axis in (0, 1)], axis=-1)
        width = round(_CORNER_M / _STEP_M) | 1
        box = np.full(width, 1 / width)
        return np.stack([np.convolve(path[:, axis], box, mode="valid") for axis in (0, 1)], axis=-1)


def along_lane(
    lane: Float[np.ndarray, "p 2"], distance_m: Float[np.ndarray, " f"]
) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, " f"]]:
    """Positions and yaw (radians) after some distances along a lane."""
    samples = np.arange(len(lane)) * _STEP_M
    position = np.stack([np.interp(distance_m, samples, lane[:, axis]) for axis in (0, 1)], axis=-1)
    tangent = np.gradient(lane, axis=0)
    heading = np.stack([np.interp(distance_m, samples, tangent[:, axis]) for axis in (0, 1)], axis=-1)
    return position, np.arctan2(heading[:, 1], heading[:, 0])


def lane_length_m(lane: Float[np.ndarray, "p 2"]) -> float:
    """Length of a lane."""
    return (len(lane) - 1) * _STEP_M
