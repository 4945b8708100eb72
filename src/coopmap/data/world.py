"""The world of a sample: the scenario's own, unless that is too far away for single precision (numpy)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

FAR_M = 2000.0
"""Up to this distance from the origin, farther than the towns of CARLA reach, float32 rounds positions by 0.1 mm."""
STEP_M = 1000.0


def world_origin(pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 3"]:
    """Point of the world that becomes the origin of a sample with a view there; zero unless the view is far away.

    In UTM coordinates, 5,336 km from the origin, float32 has steps of half a meter. Whole kilometers keep the moved
    coordinates recognizable.
    """
    position = pose[:3, 3]
    return STEP_M * np.round(position / STEP_M) if np.abs(position).max() > FAR_M else np.zeros(3)


def moved_world(
    poses: Sequence[Float[np.ndarray, "4 4"]], origin: Float[np.ndarray, " 3"]
) -> list[Float[np.ndarray, "4 4"]]:
    """``T_world_view`` in the world whose origin is ``origin``, double precision."""
    shift = np.eye(4)
    shift[:3, 3] = -origin
    return [shift @ pose for pose in poses]
