"""Coverage and directions: what a proxy surface makes of what cameras see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int

from coopmap.geometry.panorama import PanoramaSpec, build_warp, surface_range_from
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import angle_between, rotation_angle
from coopmap.geometry.warp_cache import rounded_rig

CANDIDATES = (
    ("infinite", 1.0),
    *(("sphere", float(radius)) for radius in (10, 20, 30, 50)),
    *(("bowl", float(radius)) for radius in (10, 15, 20, 25, 30, 40, 50, 70)),
)
"""Surfaces and radii to choose from."""

MAX_POINTS = 2000
"""Per panorama: a mean of angles needs no more."""

SAME_RIG = 0.01
"""Calibrations of one kind of car differ by less: meters, radians, share of the focal length."""


def surface_name(surface: str, radius_m: float) -> str:
    """For people."""
    return surface if surface == "infinite" else f"{surface} {radius_m:g} m"


def predicted_coverage(rig: Rig, spec: PanoramaSpec) -> float:
    """Share of the panorama that whole images of this rig cover."""
    return float(build_warp(rounded_rig(rig), replace(spec, legacy_crop=False)).covered.mean())


def angles_deg(points: Float32[np.ndarray, "n 3"], camera: Int[np.ndarray, " n"], rig: Rig) -> dict[str, float]:
    """Mean angle between the direction in which a panorama shows points and their own, for each candidate.

    Args:
        points: agent frame, farther than a camera's lever arm.
        camera: that shows each.
        rig: the cameras.
    """
    some = slice(None, None, max(1, len(points) // MAX_POINTS))
    points = points[some].astype(np.float64)
    origin = rig.agent_from_camera[camera[some], :3, 3]
    direction = points - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    true = points / np.linalg.norm(points, axis=-1, keepdims=True)
    result = {}
    for surface, radius in CANDIDATES:
        place = direction
        if surface != "infinite":
            reach = surface_range_from(origin, direction, surface, radius, rig.ground_height_m)
            place = origin + direction * reach[:, None]
        shown = place / np.linalg.norm(place, axis=-1, keepdims=True)
        result[surface_name(surface, radius)] = float(np.rad2deg(angle_between(shown, true)).mean())
    return result


def rigs_differ(a: Rig, b: Rig) -> bool:
    """Whether two calibrations are of different kinds of cars."""
    relative = np.swapaxes(a.agent_from_camera[:, :3, :3], -1, -2) @ b.agent_from_camera[:, :3, :3]
    shift = np.abs(a.agent_from_camera[:, :3, 3] - b.agent_from_camera[:, :3, 3]).max()
    focal = np.abs(b.intrinsics[:, 0, 0] / a.intrinsics[:, 0, 0] - 1).max()
    return a.image_size != b.image_size or bool(max(shift, rotation_angle(relative).max(), focal) > SAME_RIG)
