"""Rigid transforms as 4x4 matrices for the data side (numpy): the twin of :mod:`coopmap.geometry.se3`.

The names, conventions and broadcasting are those of the torch side. Renderers and readers, which do not import torch,
use this one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def invert(pose: Float[np.ndarray, "*b 4 4"]) -> Float[np.ndarray, "*b 4 4"]:
    """``T_b_a`` from ``T_a_b``, using that the rotation is orthonormal."""
    inverse = np.zeros_like(pose)
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -(rotation @ pose[..., :3, 3:])
    inverse[..., 3, 3] = 1
    return inverse


def relative_pose(
    pose_world_a: Float[np.ndarray, "*b 4 4"], pose_world_b: Float[np.ndarray, "*b 4 4"]
) -> Float[np.ndarray, "*b 4 4"]:
    """``T_a_b`` from ``T_world_a`` and ``T_world_b``."""
    return invert(pose_world_a) @ pose_world_b


def transform_points(pose: Float[np.ndarray, "*b 4 4"], points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Apply ``T_a_b`` to points of frame b: one pose to points of any shape, or poses ``*b`` to points ``*b n 3``."""
    return rotate(pose, points) + pose[..., None, :3, 3]


def rotate(pose: Float[np.ndarray, "*b 4 4"], directions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Apply the rotation of ``T_a_b`` to directions of frame b; shapes as in :func:`transform_points`."""
    return directions @ np.swapaxes(pose[..., :3, :3], -1, -2)


def rotation_angle(rotation: Float[np.ndarray, "*b 3 3"]) -> Float[np.ndarray, "*b"]:
    """Angle of a rotation in radians, [0, pi], accurate near 0 and pi."""
    # twice the sine and twice the cosine: the length of the antisymmetric part's axis, and the trace
    sine = np.sqrt(sum((rotation[..., i, j] - rotation[..., j, i]) ** 2 for i, j in ((2, 1), (0, 2), (1, 0))))
    return np.arctan2(sine, np.trace(rotation, axis1=-2, axis2=-1) - 1)


def angle_between(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
    """Angle between vectors in radians, [0, pi], accurate for small ones too."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1))
