"""What numbers in depth files mean, from surfaces whose place is known: LiDAR points, or the road under the cameras.

A pixel whose ray has length ``L`` at unit z shows a surface at range ``r``, that is at ``z = r / L``. The logarithm of
what the file holds over ``z`` or ``r`` is constant for depth in some unit, and the logarithm of their product for
inverse depth (disparity). Which of them is constant tells the kind, the constant tells the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

UNITS = {"meters": 1.0, "centimeters": 100.0, "millimeters": 1000.0}
UNIT_WITHIN = 0.1
"""Relative difference up to which a factor is that of a unit."""
MIN_POINTS = 50
CLEARLY_TIGHTER = 0.7
"""One kind fits if its spread is below this share of the other's."""
CARLA_FAR_M = 1000.0
LOGARITHM_SPAN = 5.70378
"""CARLA's ``LogarithmicDepth``: gray is ``1 + ln(z / 1000 m) / 5.70378``, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Pixels of which both the file's number and the range are known.

    Attributes:
        stored: what the file holds, above 0 and finite.
        ranges: true range along the ray, meters.
        lengths: of the pixels' rays at unit z.
        within: relative error up to which a number and a range are the same surface.
    """

    stored: Float[np.ndarray, " n"]
    ranges: Float[np.ndarray, " n"]
    lengths: Float[np.ndarray, " n"]
    within: float

    @classmethod
    def joined(cls, parts: list[Surfaces]) -> Surfaces:
        """Those of several images; at least one."""
        stored, ranges, lengths = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("stored", "ranges", "lengths")
        )
        return cls(stored, ranges, lengths, parts[0].within)

    def residual(self, kind: str) -> Float[np.ndarray, " n"]:
        """Logarithm of the number over that in meters, if files hold ``z``, ``ray``, ``disparity`` or ``logarithm``."""
        if kind == "ray":
            return np.log(self.stored / self.ranges)
        z = self.ranges / self.lengths
        if kind == "disparity":
            return np.log(self.stored * z)
        if kind == "logarithm":
            gray = self.stored / (255.0 if self.stored.max() > 1 else 1.0)
            return np.log(CARLA_FAR_M / z) + (gray - 1) * LOGARITHM_SPAN
        return np.log(self.stored / z)


@dataclass(frozen=True)
class Meaning:
    """What numbers are.

    Attributes:
        kind: ``z`` or ``ray`` (depth), ``disparity`` (inverse depth) or ``logarithm``.
        factor: number over meters (disparity: number times meters); 1 for meters.
        share: of the surfaces that agree.
    """

    kind: str
    factor: float
    share: float

    @property
    def unit(self) -> str:
        """Unit of depth, or the factor."""
        for name, factor in UNITS.items():
            if abs(self.factor / factor - 1) < UNIT_WITHIN:
                return name
        return f"{self.factor:.3g} x meters"

    @property
    def words(self) -> str:
        """For messages."""
        if self.kind == "disparity":
            return f"disparity (inverse depth: {self.factor:.3g} / meters)"
        if self.kind == "logarithm":
            return "the logarithm of depth (CARLA's LogarithmicDepth over 1000 m)"
        along = "along the optical axis (z)" if self.kind == "z" else "along the ray"
        normalized = f", normalized: 1 stands for {1 / self.factor:.4g} m" if self.factor < 1 - UNIT_WITHIN else ""
        return f"depth {along} in {self.unit} ({self.factor:.4g} per meter{normalized})"


def depth_meaning(surfaces: Surfaces, configured: str) -> Meaning | None:
    """Kind and unit of depth that fit best; ``None`` with too few surfaces.

    Args:
        surfaces: of any number of images.
        configured: kind (``z`` or ``ray``) that is taken where both fit equally well.
    """
    if len(surfaces.stored) < MIN_POINTS:
        return None
    residuals = {kind: surfaces.residual(kind) for kind in ("z", "ray")}
    offsets = {kind: _mode(residual) for kind, residual in residuals.items()}
    spread = {kind: float(np.median(np.abs(residual - offsets[kind]))) for kind, residual in residuals.items()}
    best = min(spread, key=lambda kind: spread[kind])
    other = "ray" if best == "z" else "z"
    chosen = best if spread[best] < CLEARLY_TIGHTER * spread[other] else configured
    return _meaning(surfaces, chosen, offsets[chosen])


def best_meaning(surfaces: Surfaces, configured: str) -> Meaning | None:
    """:func:`depth_meaning`, or that of numbers which are no depth, if that explains more of the surfaces."""
    found = [depth_meaning(surfaces, configured)]
    if found[0] is None:
        return None
    found += [
        _meaning(surfaces, "disparity", _mode(surfaces.residual("disparity"))),
        _meaning(surfaces, "logarithm", 0.0),
    ]
    return max((each for each in found if each is not None), key=lambda each: each.share)


def share_agreeing(surfaces: Surfaces, meaning: Meaning) -> float:
    """Share of other surfaces that agree with a meaning; 0 without any."""
    return _meaning(surfaces, meaning.kind, float(np.log(meaning.factor))).share if len(surfaces.stored) else 0.0


def share_in_meters(surfaces: Surfaces, kind: str) -> float:
    """Share of the surfaces that agree with what the configuration takes the numbers for."""
    return _meaning(surfaces, kind, 0.0).share


def _meaning(surfaces: Surfaces, kind: str, offset: float) -> Meaning:
    share = float(np.mean(np.abs(surfaces.residual(kind) - offset) < surfaces.within))
    return Meaning(kind, float(np.exp(offset)), share)


def _mode(values: Float[np.ndarray, " n"]) -> float:
    """Center of the densest half: the median of what agrees, whatever the rest does."""
    ordered = np.sort(values)
    half = max(1, len(ordered) // 2)
    width = ordered[half:] - ordered[: len(ordered) - half]
    start = int(width.argmin())
    return float(np.median(ordered[start : start + half + 1]))
