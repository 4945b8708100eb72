"""What dense depth means, from the LiDAR points that hit the same pixels.

A pixel whose ray has length ``L`` at unit z shows a surface at range ``r``. Depth along the optical axis is ``r / L``,
range is ``r``: the logarithm of stored depth over LiDAR range is ``log(unit) - log(L)`` for the one and ``log(unit)``
for the other. Which of the two is constant over the image tells the kind, the constant tells the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from coopmap.data.opv2v.depth import z_to_range
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import SeenPoints

UNITS = {"meters": 1.0, "centimeters": 100.0, "millimeters": 1000.0}
UNIT_WITHIN = 0.1
"""Relative difference up to which a factor is that of a unit."""
AGREES_WITHIN = 0.05
"""Relative difference up to which depth and a LiDAR point are the same surface."""
MIN_POINTS = 50
CLEARLY_TIGHTER = 0.7
"""One kind fits if its spread is below this share of the other's."""
TRUSTED_SHARE = 0.5
"""Points that have to agree under some kind and unit for it to be believed."""


@dataclass(frozen=True)
class DepthScale:
    """Meaning of stored depth, as far as the LiDAR tells.

    Attributes:
        kind: ``z``, ``ray``, or empty if both fit equally well.
        factor: stored depth over meters.
        share: of the points that agree under ``kind`` and ``factor``.
    """

    kind: str
    factor: float
    share: float

    @property
    def unit(self) -> str:
        """``meters``, ``centimeters``, ``millimeters``, or the factor."""
        for name, factor in UNITS.items():
            if abs(self.factor / factor - 1) < UNIT_WITHIN:
                return name
        return f"{self.factor:.3g} x meters"


def stored_at(
    stored: Float32[np.ndarray, "k h w"], seen: SeenPoints, rig: Rig
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Logarithms of stored depth over LiDAR range, and of the ray's length at unit z, where both are known."""
    depth = stored.reshape(len(stored), -1)[seen.camera, seen.pixel].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(depth / seen.ranges)
    known = np.isfinite(ratio)
    length = z_to_range(rig).reshape(len(stored), -1)[seen.camera, seen.pixel]
    return ratio[known], np.log(length[known].astype(np.float64))


def measure_scale(
    ratio: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], configured: str
) -> DepthScale | None:
    """Kind and unit that fit best; ``None`` with too few points.

    Args:
        ratio: logarithms of stored depth over LiDAR range.
        length: logarithms of the rays' lengths at unit z.
        configured: kind that is taken where both fit equally well.
    """
    if len(ratio) < MIN_POINTS:
        return None
    residuals = {"z": ratio + length, "ray": ratio}
    offsets = {kind: _mode(residual) for kind, residual in residuals.items()}
    spread = {kind: float(np.median(np.abs(residual - offsets[kind]))) for kind, residual in residuals.items()}
    best = min(spread, key=lambda kind: spread[kind])
    other = "ray" if best == "z" else "z"
    chosen = best if spread[best] < CLEARLY_TIGHTER * spread[other] else configured
    share = float(np.mean(np.abs(residuals[chosen] - offsets[chosen]) < AGREES_WITHIN))
    return DepthScale(chosen, float(np.exp(offsets[chosen])), share)


def share_agreeing(ratio: Float[np.ndarray, " n"], length: Float[np.ndarray, " n"], scale: DepthScale) -> float:
    """Share of points that agree with depth of a known meaning."""
    residual = (ratio + length if scale.kind == "z" else ratio) - np.log(scale.factor)
    return float(np.mean(np.abs(residual) < AGREES_WITHIN)) if len(residual) else 0.0


def _mode(values: Float[np.ndarray, " n"]) -> float:
    """Center of the densest half: the median of what agrees, whatever the rest does."""
    ordered = np.sort(values)
    half = max(1, len(ordered) // 2)
    width = ordered[half:] - ordered[: len(ordered) - half]
    start = int(width.argmin())
    return float(np.median(ordered[start : start + half + 1]))
