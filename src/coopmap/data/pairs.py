"""Which agents of a frame may share a training sample."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from coopmap.data.pose_table import PoseTable


@dataclass(frozen=True)
class PairLimits:
    """What is asked of a reference agent and each of its partners.

    Attributes:
        max_distance_m: largest horizontal distance; the communication range bounds it in any case.
        min_covisibility: least co-visibility; 0 asks nothing, so that it need not be known.
    """

    max_distance_m: float = math.inf
    min_covisibility: float = 0.0


class PairTable:
    """Distance and co-visibility of all pairs of agents of each frame of a split, in flat arrays.

    Args:
        poses: of the split.
        range_m: agents farther apart are never paired.
        covisibility: per frame of ``a`` agents ``a * a`` values, NaN where unknown; ``None`` = not known at all.
    """

    def __init__(self, poses: PoseTable, range_m: float, covisibility: Float32[np.ndarray, " p"] | None = None) -> None:
        self.range_m, self.covisibility = range_m, covisibility
        number = np.diff(poses.start).astype(np.int64)
        self.start = poses.pair_start
        self._number, self._row_start = number, poses.start.astype(np.int64)
        frame = np.repeat(np.arange(len(number)), number**2)
        first, second = np.divmod(np.arange(self.start[-1]) - self.start[frame], number[frame])
        self._first, self._second = ((self._row_start[frame] + place).astype(np.int32) for place in (first, second))
        x, y = (np.ascontiguousarray(axis) for axis in poses.cords[:, :2].T)
        self.distance = np.hypot(x[self._first] - x[self._second], y[self._first] - y[self._second])

    def among(self, usable: Bool[np.ndarray, " n"]) -> PairTable:
        """A table in which the rows of the index that are not usable have no partners, not even themselves."""
        table = copy.copy(self)
        table.distance = np.where(usable[self._first] & usable[self._second], self.distance, np.nan)
        return table

    def in_range(self) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
        """Rows of the index of all ordered pairs of different agents that hear each other."""
        chosen = self._admitted(PairLimits(), slice(None)) & (self._first != self._second)
        return self._first[chosen], self._second[chosen]

    def partners(self, frame: int, limits: PairLimits) -> Bool[np.ndarray, "a a"]:
        """Whether agents of a frame may be paired; each with itself, if its pose is readable."""
        return self._square(frame, self._admitted(limits, slice(*self.start[frame : frame + 2])))

    def covisibility_of(self, frame: int) -> Float32[np.ndarray, "a a"]:
        """Co-visibility of the agents of a frame; NaN where unknown."""
        assert self.covisibility is not None, "co-visibility was not measured"
        return self._square(frame, self.covisibility[slice(*self.start[frame : frame + 2])])

    def group_sizes(self, limits: PairLimits) -> Int[np.ndarray, " f"]:
        """Per frame, the most agents that some reference agent may be put together with, itself included."""
        partners = np.bincount(self._first, self._admitted(limits, slice(None)), self._row_start[-1])
        return np.maximum.reduceat(partners, self._row_start[:-1]).astype(np.int64)

    def _admitted(self, limits: PairLimits, rows: slice) -> Bool[np.ndarray, " p"]:
        near = self.distance[rows] <= min(self.range_m, limits.max_distance_m)  # False for NaN
        if limits.min_covisibility <= 0:
            return near
        assert self.covisibility is not None, "co-visibility was not measured"
        return near & (self.covisibility[rows] >= limits.min_covisibility)

    def _square(self, frame: int, values: Float[np.ndarray, " p"] | Bool[np.ndarray, " p"]) -> np.ndarray:
        return values.reshape(self._number[frame], self._number[frame])
