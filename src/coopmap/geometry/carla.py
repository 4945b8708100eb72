"""CARLA/Unreal poses and the change to OpenCV axes (numpy, float64).

CARLA is left-handed: x forward, y right, z up. OpenCV is right-handed: x right, y down, z forward.
Only the OPV2V reader and writer use this module; everything else is in OpenCV axes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

BASIS_CV_UE: Float[np.ndarray, "4 4"] = np.array(
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""Maps CARLA coordinates to OpenCV ones: ``x_cv = y_ue, y_cv = -z_ue, z_cv = x_ue``."""


def pose_from_carla(cords: ArrayLike) -> Float[np.ndarray, "*batch 4 4"]:
    """Matrix of CARLA 6-vectors ``(x, y, z, roll, yaw, pitch)``, degrees, in CARLA axes.

    Positive pitch lifts the nose, positive yaw turns right, positive roll lowers the right side; the rotation is
    ``Rz(yaw) Ry(-pitch) Rx(-roll)`` in terms of the usual right-hand-rule matrices (``carla.Transform.get_matrix``).

    Args:
        cords: shape ``(..., 6)``, as the OPV2V keys ``cords`` and ``lidar_pose`` store it.

    Raises:
        ValueError: if the last dimension is not 6 or a value is not finite.
    """
    vector = np.asarray(cords, dtype=np.float64)
    if vector.ndim == 0 or vector.shape[-1] != 6:
        raise ValueError(f"a CARLA pose has 6 numbers (x, y, z, roll, yaw, pitch), got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"a CARLA pose must be finite, got {vector.tolist()}")
    roll, yaw, pitch = np.moveaxis(np.deg2rad(vector[..., 3:]), -1, 0)
    cr, sr, cy, sy, cp, sp = np.cos(roll), np.sin(roll), np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    pose = np.zeros((*vector.shape[:-1], 4, 4))
    pose[..., 0, 0], pose[..., 0, 1], pose[..., 0, 2] = cy * cp, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr
    pose[..., 1, 0], pose[..., 1, 1], pose[..., 1, 2] = sy * cp, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr
    pose[..., 2, 0], pose[..., 2, 1], pose[..., 2, 2] = sp, -cp * sr, cp * cr
    pose[..., :3, 3] = vector[..., :3]
    pose[..., 3, 3] = 1.0
    return pose


def carla_from_pose(pose: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 6"]:
    """Inverse of :func:`pose_from_carla`; pitch comes out in [-90, 90] degrees."""
    pitch = np.arcsin(np.clip(pose[..., 2, 0], -1.0, 1.0))
    roll = np.arctan2(-pose[..., 2, 1], pose[..., 2, 2])
    yaw = np.arctan2(pose[..., 1, 0], pose[..., 0, 0])
    return np.concatenate([pose[..., :3, 3], np.rad2deg(np.stack([roll, yaw, pitch], axis=-1))], axis=-1)


def pose_cv_from_ue(pose_ue: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 4 4"]:
    """Change both frames of a pose from CARLA to OpenCV axes: ``B T B^-1``."""
    return BASIS_CV_UE @ pose_ue @ BASIS_CV_UE.T


def pose_ue_from_cv(pose_cv: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 4 4"]:
    """Inverse of :func:`pose_cv_from_ue`."""
    return BASIS_CV_UE.T @ pose_cv @ BASIS_CV_UE


def points_cv_from_ue(points_ue: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Change points or directions from CARLA to OpenCV axes."""
    return np.stack([points_ue[..., 1], -points_ue[..., 2], points_ue[..., 0]], axis=-1)


def points_ue_from_cv(points_cv: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Inverse of :func:`points_cv_from_ue`."""
    return np.stack([points_cv[..., 2], points_cv[..., 0], -points_cv[..., 1]], axis=-1)
