"""Signs of pitch, roll and yaw, and which image belongs to which camera.

Poses come as CARLA's angles; a right-handed helper gets pitch and roll wrong and passes on flat roads. With the wrong
sign the mounting of the cameras on the car, which is fixed, changes with the slope; so does what the LiDAR hits.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from coopmap.geometry.carla import carla_from_pose, pose_cv_from_ue, pose_from_carla, pose_ue_from_cv
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import relative_pose

FLIPS = {
    "pitch_sign": (1.0, 1.0, -1.0),
    "roll_sign": (-1.0, 1.0, 1.0),
    "yaw_sign": (1.0, -1.0, 1.0),
}
"""Factors on (roll, yaw, pitch) that undo each wrong sign."""

STEP_RELATIVE, STEP_M = 0.1, 0.5
NEIGHBOR_RAD = np.deg2rad(4.0)


def flipped(
    cords: Float[np.ndarray, "*b 6"], flip: str, lidar: bool = True, cameras: bool = True
) -> Float[np.ndarray, "*b 6"]:
    """CARLA poses (the LiDAR's first, then the cameras') with an angle's sign turned."""
    factor = np.array([1.0, 1.0, 1.0, *FLIPS[flip]])
    result = cords.copy()
    if lidar:
        result[..., 0, :] *= factor
    if cameras:
        result[..., 1:, :] *= factor
    return result


def cords_of(pose: Float[np.ndarray, "4 4"], rig: Rig) -> Float[np.ndarray, "k+1 6"]:
    """CARLA poses of the LiDAR and the cameras."""
    return carla_from_pose(pose_ue_from_cv(np.concatenate([pose[None], pose @ rig.agent_from_camera])))


def mounting(cords: Float[np.ndarray, "*b k+1 6"]) -> Float[np.ndarray, "*b k 4 4"]:
    """``T_lidar_camera`` that CARLA poses give, OpenCV axes."""
    poses = pose_cv_from_ue(pose_from_carla(cords))
    return relative_pose(poses[..., :1, :, :], poses[..., 1:, :, :])


def flipped_rig(pose: Float[np.ndarray, "4 4"], rig: Rig, flip: str) -> Rig:
    """The rig that the same recorded angles give with another sign."""
    return replace(rig, agent_from_camera=mounting(flipped(cords_of(pose, rig), flip)))


def image_edges(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Strength of edges, mean 0 and deviation 1."""
    return _edges(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32))


def depth_edges(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Strength of steps in depth, mean 0 and deviation 1; unknown depth (0, NaN, infinity: the sky) counts as far."""
    known = np.isfinite(depth) & (depth > 0)
    far = max(float(depth.max(where=known, initial=0)), 1e-3) * 3
    return _edges(np.log(np.where(known, depth, far)).astype(np.float32))


def _edges(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    strength = cv2.magnitude(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    limit = max(float(np.percentile(strength, 90)), 1e-6)  # a few strong edges must not be all
    smooth = cv2.GaussianBlur(np.minimum(strength / limit, 1), (0, 0), max(1.0, values.shape[1] / 200))
    return (smooth - smooth.mean()) / max(float(smooth.std()), 1e-6)


def dense_match(images: UInt8[np.ndarray, "k h w 3"], depths: Float32[np.ndarray, "k h w"]) -> Float[np.ndarray, "k k"]:
    """Correlation of the edges of each image (rows) with the steps in each camera's depth (columns)."""
    size = images.shape[1] * images.shape[2]
    edges = np.stack([image_edges(image).reshape(-1) for image in images])
    steps = np.stack([depth_edges(depth).reshape(-1) for depth in depths])
    return edges @ steps.T / size


def outlines(sweep: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Points of a sweep behind whose neighbor along the beam there is nothing near: outlines, which images show.

    After Levinson and Thrun, Automatic Online Calibration of Cameras and Lasers, RSS 2013. Points have to be in the
    order in which a beam turns.
    """
    ranges = np.maximum(np.linalg.norm(sweep, axis=1), 1e-6)
    unit = sweep / ranges[:, None]
    result = np.zeros(len(sweep), bool)
    for side in (1, -1):
        beside = np.roll(ranges, side)
        is_neighbor = np.einsum("ni,ni->n", unit, np.roll(unit, side, axis=0)) > np.cos(NEIGHBOR_RAD)
        result |= is_neighbor & (beside - ranges > STEP_RELATIVE * ranges + STEP_M)
    return result


def best_assignment(match: Float[np.ndarray, "k k"]) -> tuple[tuple[int, ...], float]:
    """Which camera each image fits best, all together, and how much better than its own (0 = its own is best)."""
    rows = np.arange(len(match))
    scores = {order: float(match[rows, order].mean()) for order in permutations(range(len(match)))}
    best = max(scores, key=lambda order: scores[order])
    return best, scores[best] - scores[tuple(rows.tolist())]
