"""Rigid transforms as 4x4 matrices, batched, differentiable (torch, on roma).

``T_a_b`` maps points of frame b into frame a. Points and directions have different functions:
:func:`transform_points` applies rotation and translation, :func:`rotate` the rotation alone.
"""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

UNIQUE = 1e-6
"""Sum of the smaller two singular values of a matrix (the last with the sign of the determinant) up to which no
rotation is nearest to it; for a rotation it is 2. Above the rounding of a mean, also in float32."""


def pose_from_quat_trans(quat_xyzw: Float[Tensor, "*b 4"], trans: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """4x4 matrix of a unit quaternion ``(x, y, z, w)`` and a translation."""
    rotation = roma.unitquat_to_rotmat(quat_xyzw)
    return with_bottom_row(torch.cat([rotation, trans[..., None]], dim=-1))


def with_bottom_row(top: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 4 4"]:
    """The 4x4 matrix with these three rows."""
    # A row of numbers would be copied to the GPU, for which the host waits.
    bottom = torch.eye(4, dtype=top.dtype, device=top.device)[3:].expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def quat_trans_from_pose(pose: Float[Tensor, "*b 4 4"]) -> tuple[Float[Tensor, "*b 4"], Float[Tensor, "*b 3"]]:
    """Unit quaternion ``(x, y, z, w)`` with ``w >= 0`` and translation of a 4x4 matrix."""
    quat = roma.rotmat_to_unitquat(pose[..., :3, :3])
    return torch.where(quat[..., 3:] < 0, -quat, quat), pose[..., :3, 3]


def invert(pose: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """``T_b_a`` from ``T_a_b``, using that the rotation is orthonormal."""
    rotation_t = pose[..., :3, :3].transpose(-1, -2)
    trans = -(rotation_t @ pose[..., :3, 3:])
    return torch.cat([torch.cat([rotation_t, trans], dim=-1), pose[..., 3:, :]], dim=-2)


def relative_pose(
    pose_world_a: Float[Tensor, "*b 4 4"], pose_world_b: Float[Tensor, "*b 4 4"]
) -> Float[Tensor, "*b 4 4"]:
    """``T_a_b`` from ``T_world_a`` and ``T_world_b``."""
    return invert(pose_world_a) @ pose_world_b


def transform_points(pose: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Apply ``T_a_b`` to points of frame b."""
    return points @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]


def rotate(pose: Float[Tensor, "*b 4 4"], directions: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Apply the rotation of ``T_a_b`` to directions of frame b."""
    return directions @ pose[..., :3, :3].transpose(-1, -2)


def rotation_angle(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of a rotation in radians, [0, pi], accurate near 0 and pi."""
    return roma.rotmat_geodesic_distance(
        rotation, torch.eye(3, dtype=rotation.dtype, device=rotation.device).expand_as(rotation)
    )


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation nearest to a matrix of the order of 1 in the Frobenius norm; of a mean of rotations, the chordal mean.

    NaN where none is nearest, as for the mean of two half turns apart (see :data:`UNIQUE`), and where a value is not
    finite.
    """
    finite = matrix.isfinite().flatten(-2).all(dim=-1)[..., None, None]
    safe = torch.where(finite, matrix, torch.eye(3, dtype=matrix.dtype, device=matrix.device))
    _, middle, smallest = torch.linalg.svdvals(safe).unbind(-1)
    unique = (middle + smallest * torch.linalg.det(safe).sign() > UNIQUE)[..., None, None]
    with_gradient = torch.is_grad_enabled()
    # roma keeps a constant of its first call: made in inference mode, nothing after it could be differentiated.
    with torch.inference_mode(False), torch.set_grad_enabled(with_gradient):
        rotation = roma.special_procrustes(safe)
    return torch.where(finite & unique, rotation, torch.nan)
