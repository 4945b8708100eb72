"""Color of the ground: roads, lane markings, sidewalks, grass and hills, with the town's shadows baked in."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float

from coopmap.synthetic.materials import value_noise
from coopmap.synthetic.streets import PAVEMENT_M, ROAD_HALF_M, StreetPlan

_TEXEL_M = 0.14
_FAR_TEXEL_M = 1.6
_LEVELS = 5

Shade = Callable[[Float[np.ndarray, "n 2"]], Float[np.ndarray, " n"]]


def _grass(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, extent_m: float) -> np.ndarray:
    """Meadows whose hue depends on the direction from the center, patchier far out."""
    size = x.shape[0]
    patches = value_noise(rng, size, max(4, round(extent_m / 18)), 4)
    azimuth = np.arctan2(y, x)
    far = np.clip((np.hypot(x, y) - 90) / 150, 0, 1)
    hue = 0.25 + far * 0.10 * np.sin(azimuth * 2 + 1.0) + 0.03 * patches
    base = np.stack([0.30 + 0 * hue, 0.42 + 0 * hue, 0.18 + 0 * hue], axis=-1)
    warm = np.stack([0.45 + 0 * hue, 0.36 + 0 * hue, 0.22 + 0 * hue], axis=-1)
    mix = np.clip(0.35 + (hue - 0.25) * 5 + 0.25 * patches, 0, 1)[..., None]
    return base + (warm - base) * mix


def _streets(plan: StreetPlan, rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Draw sidewalks, asphalt and markings into ``image``; ``x`` and ``y`` are columns of coordinates."""
    lengthwise = [(y[None, :] - at, x[:, None], plan.x) for at in plan.y]
    crosswise = [(x[:, None] - at, y[None, :], plan.y) for at in plan.x]
    streets = lengthwise + crosswise
    for index, (across, along, stops) in enumerate(streets):
        reach = ROAD_HALF_M + PAVEMENT_M
        inside = (np.abs(across) < reach) & (along > stops[0] - reach) & (along < stops[-1] + reach)
        image[inside] = colorsys.hsv_to_rgb(index / len(streets), 0.28, 0.72)
    asphalt = 0.30 + 0.03 * value_noise(rng, image.shape[0], 120, 3)
    for index, (across, along, stops) in enumerate(streets):
        inside = (np.abs(across) < ROAD_HALF_M) & (along > stops[0] - ROAD_HALF_M) & (along < stops[-1] + ROAD_HALF_M)
        image[inside] = asphalt[inside][:, None] * (1.0 + 0.06 * np.array([index % 3 - 1, 0, 1 - index % 3]))
    for across, along, stops in streets:
        _marks(image, across, along, stops)


def _marks(image: np.ndarray, across: np.ndarray, along: np.ndarray, stops: np.ndarray) -> None:
    """Lane markings of one street between its junctions, and crosswalks."""
    distance = np.min([np.abs(along - stop) for stop in stops], axis=0)
    between = (along > stops[0]) & (along < stops[-1])
    open_road = between & (distance > ROAD_HALF_M + 5)
    yellow = open_road & (np.abs(across) < 0.10) & (np.mod(along, 6) < 3.5)
    edge = open_road & (np.abs(np.abs(across) - 3.35) < 0.07)
    bay = open_road & (np.abs(across) > 3.35) & (np.abs(across) < ROAD_HALF_M - 0.1) & (np.mod(along, 6.5) < 0.14)
    zebra = between & (np.abs(distance - ROAD_HALF_M - 2.2) < 1.3) & (np.abs(across) < ROAD_HALF_M - 0.3)
    zebra = zebra & (np.mod(across, 1.0) < 0.5)
    stop_line = between & (np.abs(distance - ROAD_HALF_M - 4.2) < 0.2)
    stop_line = stop_line & (np.abs(across) < 3.3)
    image[yellow] = (0.86, 0.68, 0.18)
    image[edge | bay | zebra | stop_line] = (0.85, 0.85, 0.83)


def _coordinates(half_m: float, texel_m: float) -> np.ndarray:
    count = round(2 * half_m / texel_m)
    return ((np.arange(count) + 0.5) / count * 2 - 1) * half_m


class GroundTexture:
    """Two square textures over x and y: the town with mip levels, and the hills.

    Args:
        rng: decides the patterns.
        plan: streets.
        half_m: half edge of the town's texture.
        far_m: half edge of the hills' texture.
        light: brightness of the ground at some places (sun, slope, shadows), multiplied in.
    """

    def __init__(self, rng: np.random.Generator, plan: StreetPlan, half_m: float, far_m: float, light: Shade) -> None:
        self._half_m, self._far_m = half_m, far_m
        line = _coordinates(half_m, _TEXEL_M)
        x, y = np.meshgrid(line, line, indexing="ij")
        image = _grass(rng, x, y, 2 * half_m)
        _streets(plan, rng, image, line, line)
        image *= (1 + 0.05 * rng.standard_normal(image.shape[:2]))[..., None]
        coarse = _coordinates(half_m, 2 * _TEXEL_M)
        lit = self._lit(light, coarse)
        image *= cv2.resize(lit, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
        self._levels = [np.clip(image, 0, 1).astype(np.float32)]
        for _ in range(_LEVELS - 1):
            last = self._levels[-1]
            self._levels.append(
                cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA)
            )
        line = _coordinates(far_m, _FAR_TEXEL_M)
        x, y = np.meshgrid(line, line, indexing="ij")
        far = _grass(rng, x, y, 2 * far_m) * self._lit(light, line)[..., None]
        self._far = np.clip(far, 0, 1).astype(np.float32)

    @staticmethod
    def _lit(light: Shade, line: np.ndarray) -> np.ndarray:
        x, y = np.meshgrid(line, line, indexing="ij")
        return light(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(x.shape).astype(np.float32)

    def lookup(self, xy: Float[np.ndarray, "n 2"], footprint_m: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
        """RGB of the lit ground at some places, at the mip level that suits the pixels' footprints."""
        color = self._sample(self._far, xy, self._far_m)
        near: Bool[np.ndarray, " n"] = np.abs(xy).max(axis=1) < self._half_m
        level = np.clip(np.log2(np.maximum(footprint_m / _TEXEL_M, 1.0)) + 0.5, 0, _LEVELS - 1).astype(np.int64)
        for index, texture in enumerate(self._levels):
            chosen = np.flatnonzero(near & (level == index))
            color[chosen] = self._sample(texture, xy[chosen], self._half_m)
        return color

    @staticmethod
    def _sample(texture: np.ndarray, xy: np.ndarray, half_m: float) -> np.ndarray:
        count = texture.shape[0]
        index = ((xy / (2 * half_m) + 0.5) * count).astype(np.int64).clip(0, count - 1)
        return texture.reshape(-1, 3)[index[:, 0] * count + index[:, 1]]
