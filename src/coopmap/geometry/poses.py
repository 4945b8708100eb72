"""Small rotations and transforms of 4x4 poses (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def rotation_about_y(angle: float) -> Float[np.ndarray, "4 4"]:
    """Rotation to the right by ``angle`` radians: maps forward (+z) toward right (+x)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0.0, sin, 0.0], [0.0, 1.0, 0.0, 0.0], [-sin, 0.0, cos, 0.0], [0.0, 0.0, 0.0, 1.0]])


def heading_deg(pose: Float[np.ndarray, "*b 4 4"]) -> Float[np.ndarray, "*b"]:
    """Where the forward axis of ``T_a_b`` points in a: degrees from a's forward axis, positive to the right."""
    return np.rad2deg(np.arctan2(pose[..., 0, 2], pose[..., 2, 2]))
