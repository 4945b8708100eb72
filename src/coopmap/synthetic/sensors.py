"""Where a car carries its cameras and LiDAR, and their rays (CARLA axes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from coopmap.config.synth import LidarConfig
from coopmap.geometry import carla_from_pose, pose_from_carla
from coopmap.geometry.rig import OPV2V_LIDAR_HEIGHT_M


@dataclass(frozen=True, eq=False)
class Mounting:
    """Where a car carries its sensors, as CARLA 6-vectors ``(x, y, z, roll, yaw, pitch)``.

    Attributes:
        lidar: ``T_car_lidar``; the car's origin is on the ground.
        cameras: ``T_lidar_camera`` of ``camera0`` (front), ``camera1`` (right), ``camera2`` (left), ``camera3`` (rear).
    """

    lidar: Float[np.ndarray, "6"]
    cameras: Float[np.ndarray, "4 6"]

    def lidar_cords(self, car_pose_ue: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "6"]:
        """``lidar_pose`` of a car."""
        return carla_from_pose(car_pose_ue @ pose_from_carla(self.lidar))

    def camera_cords(self, lidar_pose: Float[np.ndarray, "6"]) -> Float[np.ndarray, "4 6"]:
        """``cords`` of the four cameras."""
        return carla_from_pose(pose_from_carla(lidar_pose) @ pose_from_carla(self.cameras))


OPV2V_MOUNTING = Mounting(
    lidar=np.array([-0.5, 0.0, OPV2V_LIDAR_HEIGHT_M, 0.0, 0.0, 0.0]),
    cameras=np.array(
        [
            (3.0, 0.0, -0.9, 0.0, 0.0, 0.0),
            (0.5, 0.3, -0.1, 0.0, 100.0, 0.0),
            (0.5, -0.3, -0.1, 0.0, -100.0, 0.0),
            (-1.5, 0.0, -0.4, 0.0, 180.0, 0.0),
        ]
    ),
)
"""The same on every car of OPV2V."""

_LIDAR_HEIGHTS_M = (1.5, 2.9)
"""From low cars to vans and buses."""
_PLACE_M, _ROLL_DEG, _YAW_DEG, _PITCH_DEG = 0.3, 1.0, 3.0, 3.0
"""How far cameras are off those of OPV2V, in either direction. Wider gaps in yaw would leave wide wedges unseen."""


def mounting(rigs: str, seed: Sequence[int]) -> Mounting:
    """Sensors of a car: OPV2V's, or, if they are to be ``drawn``, its own by ``seed``.

    Cameras keep their share of the height of the LiDAR.
    """
    if rigs == "opv2v":
        return OPV2V_MOUNTING
    rng = np.random.default_rng(seed)
    lidar, cameras = OPV2V_MOUNTING.lidar.copy(), OPV2V_MOUNTING.cameras.copy()
    lidar[2] = rng.uniform(*_LIDAR_HEIGHTS_M)
    cameras[:, 2] *= lidar[2] / OPV2V_LIDAR_HEIGHT_M
    reach = np.array([_PLACE_M, _PLACE_M, _PLACE_M, _ROLL_DEG, _YAW_DEG, _PITCH_DEG])
    return Mounting(lidar, cameras + rng.uniform(-reach, reach, cameras.shape))


WIDTH, HEIGHT, FOCAL = 800, 600, 335.639852470912
"""Camera of the real rig, pixels."""


def intrinsic(image_scale: float) -> Float[np.ndarray, "3 3"]:
    """Pinhole matrix at a resolution relative to 800 x 600; pixel centers lie at + 0.5."""
    return np.array([[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0 / image_scale]]) * image_scale


@lru_cache(maxsize=2)
def camera_rays(image_scale: float) -> Float[np.ndarray, "h w 3"]:
    """Ray of each pixel in the camera's CARLA axes, scaled to 1 along the optical axis."""
    matrix = intrinsic(image_scale)
    u, v = np.meshgrid(
        np.arange(round(WIDTH * image_scale)) + 0.5, np.arange(round(HEIGHT * image_scale)) + 0.5, indexing="xy"
    )
    right, down = (u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1]
    return np.stack([np.ones_like(right), right, -down], axis=-1)


def lidar_rays(cfg: LidarConfig) -> Float[np.ndarray, "n 3"]:
    """Unit directions of one LiDAR sweep in the LiDAR's CARLA axes, beam after beam."""
    elevation = np.deg2rad(np.linspace(cfg.elevation_min_deg, cfg.elevation_max_deg, cfg.beams))[:, None]
    azimuth = (np.arange(cfg.azimuth_steps) * (2 * np.pi / cfg.azimuth_steps))[None]
    directions = np.broadcast_arrays(
        np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
    )
    return np.stack(directions, axis=-1).reshape(-1, 3)
