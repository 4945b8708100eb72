"""Color of the ground around a meeting place: drawn as an image, a texel of 16 cm, coarser with distance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import value_noise
from coopmap.synthetic.street.roads import Road
from coopmap.synthetic.street.styles import Style

HALF_M = 82.0
_TEXELS = 1024
_TEXEL_M = 2 * HALF_M / _TEXELS
_SHIFT = 6
_LEVELS = 5
_COUNT = _TEXELS >> np.arange(_LEVELS, dtype=np.int32)
"""Texels along the edge of each level."""
_START = np.concatenate([[0], np.cumsum(_COUNT**2)])
"""Where levels start, in texels, and where the last ends."""

BASE_COLORS = {
    "grass": (0.28, 0.40, 0.16), "dry": (0.48, 0.43, 0.26), "gravel": (0.47, 0.44, 0.40), "asphalt": (0.28, 0.28, 0.29),
    "concrete": (0.55, 0.54, 0.52), "paving": (0.52, 0.49, 0.46), "cobble": (0.40, 0.38, 0.36),
}  # fmt: skip


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """Noise at three scales, to take pieces of."""
    rng = np.random.default_rng(11)
    size = _TEXELS + _TEXELS // 2
    return np.stack([value_noise(rng, size, cells, octaves) for cells, octaves in ((15, 4), (72, 4), (300, 3))])


def _noise(rng: np.random.Generator, amplitude: Float[np.ndarray, "3"]) -> np.ndarray:
    """A mixture of pieces at the three scales."""
    mixed = np.zeros((_TEXELS, _TEXELS), dtype=np.float32)
    for layer, strength in zip(_noise_bank(), amplitude, strict=True):
        down, right = rng.integers(0, layer.shape[0] - _TEXELS, 2)
        cv2.scaleAdd(layer[down : down + _TEXELS, right : right + _TEXELS], strength, mixed, dst=mixed)
    return mixed


def _texel(xy: np.ndarray) -> np.ndarray:
    """Fixed-point image coordinates of places, columns are y: row i covers x = -HALF + (i + 0.5) texels."""
    return np.round(((xy[..., ::-1] + HALF_M) / _TEXEL_M - 0.5) * (1 << _SHIFT)).astype(np.int32)


class StreetGround:
    """Albedo of the ground, without light.

    Args:
        rng: decides.
        style: of the street.
        roads: of the street.
    """

    def __init__(self, rng: np.random.Generator, style: Style, roads: Sequence[Road]) -> None:
        self.base = self._shade_of(rng, str(rng.choice(style.verge)), 0.15)
        line = np.empty((_TEXELS, 3), dtype=np.uint8)
        line[:] = self.base
        image = np.repeat(line[None], _TEXELS, axis=0)
        self._patches(rng, image, style, roads)
        walk = self._shade_of(rng, str(rng.choice(["paving", "concrete", "cobble", "asphalt"])), 0.3)
        asphalt = np.clip(rng.uniform(40, 100) * rng.uniform(0.93, 1.07, 3), 0, 255)
        curb = np.clip(walk * rng.uniform(0.8, 1.3), 0, 255)
        for road in roads:
            if road.sidewalk_m > 0.3:
                self._stripe(image, road, road.reach_m, walk)
                self._stripe(image, road, road.half_m + 0.2, curb)
            elif rng.random() < 0.6:
                self._stripe(image, road, road.half_m + rng.uniform(0.3, 1.5), np.clip(self.base * 0.8 + 15, 0, 255))
        for road in roads:
            self._stripe(image, road, road.half_m, asphalt)
        self._wear(rng, image, roads, asphalt)
        _draw_marks(rng, image, roads)
        self._texels = self._textured(rng, image, self.base / 255)

    @staticmethod
    def _shade_of(rng: np.random.Generator, kind: str, spread: float) -> np.ndarray:
        color = np.array(BASE_COLORS[kind]) * rng.uniform(1 - spread, 1 + spread) * rng.uniform(0.88, 1.12, 3)
        return np.clip(color * 255, 0, 255)

    @staticmethod
    def _stripe(image: np.ndarray, road: Road, half_m: float, color: np.ndarray) -> None:
        along = np.linspace(*road.along, 2 if road.curvature == 0 else 40)
        left, right = (road.place(along, np.full(along.shape, side * half_m))[0] for side in (-1.0, 1.0))
        corners = _texel(np.concatenate([left, right[::-1]]))
        cv2.fillPoly(image, [corners], tuple(map(float, color)), cv2.LINE_AA, _SHIFT)

    def _patches(self, rng: np.random.Generator, image: np.ndarray, style: Style, roads: Sequence[Road]) -> None:
        """Yards, driveways and plots in other colors beside the roads."""
        for road in roads:
            for _ in range(int(rng.integers(4, 14))):
                along, side = rng.uniform(*road.along), rng.choice([-1.0, 1.0])
                width, depth = rng.uniform(2.5, 16), rng.uniform(6, 28)
                at = np.array([along, along + width, along + width, along])
                across = side * (road.half_m + np.array([0, 0, depth, depth]))
                color = self._shade_of(rng, str(rng.choice([*style.verge, "paving", "gravel", "concrete"])), 0.3)
                cv2.fillPoly(image, [_texel(road.place(at, across)[0])], tuple(map(float, color)), cv2.LINE_AA, _SHIFT)

    @staticmethod
    def _wear(rng: np.random.Generator, image: np.ndarray, roads: Sequence[Road], asphalt: np.ndarray) -> None:
        """Mended asphalt, cracks, stains and manholes."""
        for road in roads:
            for _ in range(int(rng.integers(4, 22))):
                along, across = rng.uniform(*road.along), rng.uniform(-road.half_m, road.half_m)
                color = tuple(map(float, np.clip(asphalt * rng.uniform(0.6, 1.5), 0, 255)))
                kind = rng.integers(4)
                if kind == 0:
                    at = along + np.array([0, 1, 1, 0]) * rng.uniform(0.6, 9)
                    aside = across + np.array([0, 0, 1, 1]) * rng.uniform(0.4, 2.5)
                    spot = _texel(road.place(at, np.clip(aside, -road.half_m, road.half_m))[0])
                    cv2.fillPoly(image, [spot], color, cv2.LINE_AA, _SHIFT)
                elif kind == 1:
                    steps = np.cumsum(rng.uniform(0.2, 1.2, 7))
                    crack = road.place(along + steps, across + np.cumsum(rng.normal(0, 0.35, 7)))[0]
                    cv2.polylines(image, [_texel(crack)], False, color, 1, cv2.LINE_AA, _SHIFT)
                else:
                    center = _texel(road.place(np.array(along), np.array(across))[0])
                    size = rng.uniform(0.3, 0.45, 1).repeat(2) if kind == 2 else rng.uniform(0.3, 1.6, 2)
                    axes = tuple(int(value) for value in size / _TEXEL_M * (1 << _SHIFT))
                    cv2.ellipse(
                        image, tuple(map(int, center)), axes, float(rng.uniform(0, 180)), 0, 360, color, -1,
                        cv2.LINE_AA, _SHIFT,
                    )  # fmt: skip

    @staticmethod
    def _textured(rng: np.random.Generator, image: np.ndarray, beyond: np.ndarray) -> np.ndarray:
        """Texels of all levels, row after row, and last the color beyond the image."""
        strength = rng.uniform([0.04, 0.03, 0.03], [0.22, 0.15, 0.15])
        texels = np.empty((_START[-1] + 1, 3), dtype=np.float32)
        levels = [
            texels[first:end].reshape(count, count, 3)
            for first, end, count in zip(_START[:-1], _START[1:], _COUNT, strict=True)
        ]
        shade = cv2.cvtColor(1 + _noise(rng, strength), cv2.COLOR_GRAY2RGB)
        cv2.multiply(image, shade, dst=levels[0], scale=1 / 255, dtype=cv2.CV_32F)
        for fine, coarse in pairwise(levels):
            cv2.resize(fine, coarse.shape[:2], dst=coarse, interpolation=cv2.INTER_AREA)
        texels[-1] = beyond
        return texels

    def lookup(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], footprint_m: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """RGB albedo at places, at the level that suits the pixels' footprints; beyond the image, the verge's."""
        level = np.clip(np.log2(np.maximum(footprint_m / _TEXEL_M, 1.0)) + 0.5, 0, _LEVELS - 1).astype(np.int32)
        near = np.maximum(np.abs(x), np.abs(y)) < HALF_M
        count = _COUNT[level]
        per_m = count.astype(np.float32) / np.float32(2 * HALF_M)
        row, column = (np.clip(((each + HALF_M) * per_m).astype(np.int32), 0, count - 1) for each in (x, y))
        index = np.where(near, _START[level] + row * count + column, _START[-1])
        return self._texels.take(index, axis=0)


def _draw_marks(rng: np.random.Generator, image: np.ndarray, roads: Sequence[Road]) -> None:
    """Lane markings between junctions, parking bays, crosswalks."""
    fresh = rng.uniform(0.55, 1.0)
    white = tuple(fresh * rng.uniform(0.75, 1.0) * 255 * np.ones(3))
    yellow = tuple(fresh * 255 * np.array([0.88, 0.70, 0.2]))
    unmarked, zebra_share = rng.random() < 0.15, rng.uniform(0.0, 1.0)
    middle_color = yellow if rng.random() < 0.45 else white
    for road in roads:
        others = [other for other in roads if other is not road]
        if unmarked and road.lanes == 1:
            continue
        dash, gap = rng.uniform(1.5, 5), rng.uniform(1.5, 7)
        solid_middle = rng.random() < 0.35
        if road.median_m < 0.5:
            _line(image, road, others, 0.0, 0.14, middle_color, None if solid_middle else (dash, gap))
        for side in (-1.0, 1.0):
            for lane in range(1, road.lanes):
                _line(image, road, others, side * (road.median_m / 2 + lane * road.lane_m), 0.14, white, (dash, gap))
            if road.parking_m or road.lanes > 1 or rng.random() < 0.5:
                _line(image, road, others, side * (road.lanes_half_m - 0.15), 0.14, white, None)
            if road.median_m >= 0.5:
                _line(image, road, others, side * (road.median_m / 2 + 0.2), 0.14, middle_color, None)
        if road.parking_m and rng.random() < 0.7:
            _bays(image, road, others, white)
        if others and rng.random() < zebra_share:
            _crosswalks(rng, image, road, others, white)


def _free(
    road: Road, others: Sequence[Road], along: np.ndarray, across: float | np.ndarray, gap_m: float
) -> np.ndarray:
    """Where along a road no other road is near."""
    xy = road.place(along, np.broadcast_to(across, along.shape))[0]
    free = np.ones(len(along), dtype=bool)
    for other in others:
        at, aside = other.locate(xy)
        free &= (np.abs(aside) > other.half_m + gap_m) | (at < other.along[0] - gap_m) | (at > other.along[1] + gap_m)
    return free


def _line(
    image: np.ndarray,
    road: Road,
    others: Sequence[Road],
    across: float,
    width_m: float,
    color: tuple[float, ...],
    dash: tuple[float, float] | None,
) -> None:
    step = 1.0
    along = np.arange(road.along[0], road.along[1], step)
    shown = _free(road, others, along, across, 3.0)
    if dash is not None:
        shown &= np.mod(along, sum(dash)) < dash[0]
    start = along[shown]
    corners = [
        road.place(start + ahead, np.full(start.shape, across + aside))[0]
        for ahead, aside in ((0, -width_m / 2), (step, -width_m / 2), (step, width_m / 2), (0, width_m / 2))
    ]
    for quad in _texel(np.stack(corners, axis=1)):
        cv2.fillConvexPoly(image, quad, color, cv2.LINE_AA, _SHIFT)


def _bays(image: np.ndarray, road: Road, others: Sequence[Road], color: tuple[float, ...]) -> None:
    along = np.arange(road.along[0], road.along[1], 6.0)
    for side in (-1.0, 1.0):
        here = along[_free(road, others, along, side * road.half_m, 5.0)]
        for at in here:
            ends = road.place(np.array([at, at]), side * np.array([road.lanes_half_m, road.half_m]))[0]
            start, end = _texel(ends).tolist()
            cv2.line(image, start, end, color, 1, cv2.LINE_AA, _SHIFT)


def _crosswalks(
    rng: np.random.Generator, image: np.ndarray, road: Road, others: Sequence[Road], color: tuple[float, ...]
) -> None:
    """Stripes where a road leaves a junction, and stop lines behind them."""
    along = np.arange(road.along[0], road.along[1], 0.5)
    free = _free(road, others, along, 0.0, 0.8)
    edges = np.flatnonzero(free[1:] != free[:-1])
    width, length = rng.uniform(0.35, 0.6), rng.uniform(2.2, 4.0)
    stripes = np.arange(-road.half_m + 0.4, road.half_m - 0.4, 2 * width)
    for edge in edges:
        away = 1.0 if free[edge + 1] else -1.0
        near = along[edge] + away * 0.6
        for across in stripes:
            at = near + away * np.array([0, length, length, 0])
            quad = road.place(at, across + width * np.array([0, 0, 1, 1]))[0]
            cv2.fillConvexPoly(image, _texel(quad), color, cv2.LINE_AA, _SHIFT)
        stop = near + away * (length + 1.0 + np.array([0, 0.4, 0.4, 0]))
        # traffic that comes toward the junction keeps to the right of its own direction
        side = -away * np.array([road.median_m / 2, road.median_m / 2, road.lanes_half_m, road.lanes_half_m])
        cv2.fillConvexPoly(image, _texel(road.place(stop, side)[0]), color, cv2.LINE_AA, _SHIFT)
