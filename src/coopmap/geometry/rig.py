"""An agent's four cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SLOTS = ("front", "left", "rear", "right")
"""Canonical camera order, everywhere in the program."""

SLOTS_BY_AZIMUTH = (1, 0, 3, 2)
"""Slots from left to right around the car: left, front, right, rear. Neighbors look in neighboring directions."""

OPV2V_CAMERA_OF_SLOT = (0, 2, 3, 1)
"""OPV2V camera number of each slot: ``camera0`` front, ``camera2`` left, ``camera3`` rear, ``camera1`` right."""

SLOT_AZIMUTH_DEG = {"front": (-45.0, 45.0), "left": (-170.0, -10.0), "rear": (135.0, 225.0), "right": (10.0, 170.0)}
"""Where the optical axis of each camera may point, positive to the right."""

OPV2V_LIDAR_HEIGHT_M = 1.9
"""Height of OPV2V's LiDAR above the ground, for data without metadata; otherwise see ``Rig.ground_height_m``."""


@dataclass(frozen=True, eq=False)
class Rig:
    """Calibration of an agent's cameras, in slot order; OpenCV axes, float64.

    The agent frame is its LiDAR frame.

    Attributes:
        intrinsics: pinhole matrices, pixels; pixel centers lie at ``+ 0.5``.
        agent_from_camera: ``T_agent_camera``.
        image_size: ``(height, width)`` of the images that the intrinsics belong to.
        ground_height_m: height of the agent's origin above the ground.
    """

    intrinsics: Float[np.ndarray, "k 3 3"]
    agent_from_camera: Float[np.ndarray, "k 4 4"]
    image_size: tuple[int, int]
    ground_height_m: float

    @property
    def azimuths_deg(self) -> Float[np.ndarray, " k"]:
        """Direction of each optical axis, positive to the right of forward."""
        forward = self.agent_from_camera[:, :3, 2]
        return np.rad2deg(np.arctan2(forward[:, 0], forward[:, 2]))

    def misplaced_slots(self) -> list[str]:
        """Slots whose camera looks where another's should."""
        return [
            slot
            for slot, azimuth in zip(SLOTS, self.azimuths_deg, strict=True)
            if not any(
                SLOT_AZIMUTH_DEG[slot][0] <= turned <= SLOT_AZIMUTH_DEG[slot][1] for turned in (azimuth, azimuth + 360)
            )
        ]
