"""Appearance that a whole street shares: sun, sky, haze, and how cameras turn light into pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from coopmap.synthetic.materials import value_noise

_ROWS, _COLUMNS, _LOWEST = 96, 384, -0.1


@dataclass(frozen=True, eq=False)
class Light:
    """Light of a street.

    Attributes:
        toward_sun: unit vector.
        sun: color and strength of the sun on a surface that faces it; zero under an overcast sky.
        ambient: light from the sky.
        haze: color of distant things.
        haze_m: distance at which 63 % of a color are haze.
    """

    toward_sun: Float[np.ndarray, "3"]
    sun: Float[np.ndarray, "3"]
    ambient: Float[np.ndarray, "3"]
    haze: Float[np.ndarray, "3"]
    haze_m: float


def draw_light(rng: np.random.Generator) -> tuple[Light, Sky]:
    """Time of day and weather."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(8, 75))
    toward_sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    low = float(np.clip(1 - np.rad2deg(elevation) / 30, 0, 1))
    tint = np.array([1.0, 0.97 - 0.18 * low, 0.93 - 0.42 * low])
    overcast = rng.random() < 0.35
    clouds = rng.uniform(0.75, 1.0) if overcast else rng.uniform(0.0, 0.6)
    sun = (0.0 if overcast else rng.uniform(0.45, 1.0)) * tint
    blue = np.array([0.9, 0.97, 1.08]) if not overcast else np.array([1.0, 1.0, 1.02])
    ambient = rng.uniform(0.45, 0.7) * blue if not overcast else rng.uniform(0.6, 0.95) * blue
    zenith = np.array([0.2, 0.42, 0.8]) * rng.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15, 3)
    horizon = np.array([0.8, 0.87, 0.93]) * rng.uniform(0.75, 1.05) * (1 - 0.5 * low * np.array([0.0, 0.25, 0.55]))
    cloud = np.array([0.95, 0.95, 0.96]) * (rng.uniform(0.6, 0.95) if overcast else rng.uniform(0.85, 1.0))
    sky = Sky(rng, None if overcast else toward_sun, zenith, horizon, cloud, clouds)
    haze_m = float(np.exp(rng.uniform(np.log(250), np.log(2500))))
    colors = [each.astype(np.float32) for each in (sun, ambient, horizon)]
    return Light(toward_sun, colors[0], colors[1], colors[2], haze_m), sky


class Sky:
    """Color of the sky by world direction: gradient, clouds, and the glow around the sun.

    Args:
        rng: decides the clouds.
        sun: unit vector toward the sun, if it can be seen.
        zenith: color overhead.
        horizon: color at the horizon.
        cloud: color of clouds.
        cover: share of the sky behind clouds, roughly.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        sun: Float[np.ndarray, "3"] | None,
        zenith: Float[np.ndarray, "3"],
        horizon: Float[np.ndarray, "3"],
        cloud: Float[np.ndarray, "3"],
        cover: float,
    ) -> None:
        elevation = np.linspace(np.pi / 2, _LOWEST, _ROWS)[:, None]
        azimuth = (np.arange(_COLUMNS) + 0.5)[None] / _COLUMNS * 2 * np.pi - np.pi
        x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
        z = np.broadcast_to(np.sin(elevation), x.shape)
        up = np.clip(z, 0, 1)[..., None]
        color = horizon + (zenith - horizon) * up ** rng.uniform(0.3, 0.7)
        size = 256
        noise = value_noise(rng, size, int(rng.integers(5, 14)), 4)
        cells = [np.clip((plane / (z.clip(0) + 0.2) / 8 + 0.5) * size, 0, size - 1).astype(int) for plane in (x, y)]
        cover_here = np.clip((noise[cells[1], cells[0]] + 2 * cover - 1) * 2.5, 0, 1)[..., None]
        color = color + (cloud - color) * cover_here * np.clip(up * 8, 0, 1)
        if sun is not None:
            near = np.clip(np.stack([x, y, z], axis=-1) @ sun, 0, 1)[..., None]
            color = color + (np.array([1.0, 0.9, 0.7]) - color) * (0.35 * near**8 + 0.5 * near**80)
        self._texels = np.clip(color, 0, 1).reshape(-1, 3).astype(np.float32)

    def lookup(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], z: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """RGB seen along world directions (any length)."""
        elevation = np.arctan2(z, np.sqrt(x * x + y * y))
        row = (np.pi / 2 - elevation) * ((_ROWS - 1) / (np.pi / 2 - _LOWEST)) + 0.5
        column = (np.arctan2(y, x) + np.pi) * (_COLUMNS / (2 * np.pi))
        row = np.clip(row, 0, _ROWS - 1).astype(np.int32)
        return self._texels.take(row * _COLUMNS + column.astype(np.int32) % _COLUMNS, axis=0)


@dataclass(frozen=True, eq=False)
class Film:
    """How cameras turn light into pixels.

    Attributes:
        exposure: gain.
        exposure_spread: relative difference between cameras, standard deviation.
        balance: gain of each channel.
        gamma: exponent.
        saturation: 1 keeps colors, 0 makes gray.
        noise: standard deviation of pixel noise.
        blur_px: standard deviation of the lens's blur at 160 pixels of width, 0 for none.
        vignette: darkening in the corners.
    """

    exposure: float
    exposure_spread: float
    balance: Float[np.ndarray, "3"]
    gamma: float
    saturation: float
    noise: float
    blur_px: float
    vignette: float

    @classmethod
    def draw(cls, rng: np.random.Generator, light: Light) -> Film:
        """A camera type, exposed for the light that there is, more or less well."""
        brightness = float((light.ambient + 0.6 * light.sun * light.toward_sun[2]).mean())
        return cls(
            float(np.exp(rng.normal(0, 0.2))) * 1.1 / max(brightness, 0.2),
            float(rng.uniform(0, 0.12)),
            np.exp(rng.normal(0, 0.04, 3)).astype(np.float32),
            float(np.exp(rng.normal(0, 0.15))),
            float(rng.uniform(0.6, 1.25)),
            float(rng.uniform(0.0, 0.025)),
            float(max(0.0, rng.uniform(-0.5, 0.7))),
            float(rng.uniform(0.0, 0.25)),
        )

    def develop(self, color: Float[np.ndarray, "h w 3"], seed: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
        """Pixels of an image in [0, 1]; ``seed`` decides its noise."""
        rng = np.random.default_rng(seed)
        height, width = color.shape[:2]
        gain = self.exposure * np.exp(rng.normal(0, self.exposure_spread)) * self.balance
        mixed = self.saturation * np.eye(3) + (1 - self.saturation) / 3  # each channel with the mean of all
        image = color @ (gain[:, None] * mixed).astype(np.float32)
        if self.vignette > 0.02:
            v, u = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
            image *= (1 - np.float32(self.vignette / 2) * (u * u + v * v))[..., None]
        image = np.clip(image, 0, 1) ** np.float32(self.gamma)
        sigma = self.blur_px * width / 160
        if sigma > 0.05:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        image += np.float32(self.noise) * rng.standard_normal(image.shape, dtype=np.float32)
        return np.clip(image, 0, 1)
