"""What would be used without learning: features in the camera images, matched, and relative poses of pairs of agents.

SIFT from OpenCV (RootSIFT, mutual nearest neighbors, ratio test) between all cameras of two agents, then either of

- PoseLib's generalized relative pose (optional extra ``matching``): images and the calibrated rig alone. Its scale
  comes from the baselines between an agent's cameras, which are short;
- alignment of the matched points, whose ranges are those of the LiDAR at the keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from scipy.spatial import cKDTree

from coopmap.geometry.alignment import align, ray_covariance
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert, transform_points
from coopmap.geometry.targets import SeenPoints

INSTALL_HINT = "not installed: pip install coopmap[matching]"
MAX_KEYPOINTS = 2000
"""Per image, the strongest."""
MAX_RATIO = 0.8
"""Of the distances to the nearest and the second nearest descriptor (Lowe, 2004)."""
LIDAR_RADIUS_PX = 6.0
"""A keypoint has the range of the LiDAR point nearest to it in the image, up to this distance."""
RANGE_SIGMA, BEARING_SIGMA_DEG, TILT_SIGMA_DEG = 0.02, 0.3, 3.0
"""Of points at keypoints: relative error of the range, mostly from the distance to the LiDAR point; of the direction;
and roll and pitch of one agent relative to another, as for the model's own alignment."""
MIN_AGREEING = 8
"""Matches that must agree with a pose; three or four wrong ones often do."""
MIN_INLIERS = 15
"""The same for PoseLib, whose epipolar constraint is weaker."""
SAMPLED_OF_ONE_GROUP = 5
"""Matches between one camera of either agent that PoseLib draws, beside one between two others."""
RANSAC = {"max_epipolar_error": 2.0, "max_iterations": 10_000, "seed": 0}


def is_available() -> bool:
    """Whether PoseLib is installed."""
    return find_spec("poselib") is not None


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Features in all images of an agent.

    Attributes:
        pixels: ``(u, v)``, centers of pixels at ``+ 0.5``.
        camera: slot of the image.
        descriptors: of unit length.
        points: with the LiDAR's range, agent frame; NaN where no LiDAR point is near.
    """

    pixels: Float[np.ndarray, "n 2"]
    camera: Int[np.ndarray, " n"]
    descriptors: Float32[np.ndarray, "n 128"]
    points: Float[np.ndarray, "n 3"]


class PairPose(NamedTuple):
    """``T_i_j`` of a pair, and how many matches agree with it."""

    pose: Float[np.ndarray, "4 4"]
    agreeing: int


def find_keypoints(images: UInt8[np.ndarray, "k h w 3"], rig: Rig, seen: SeenPoints | None) -> Keypoints:
    """Features of an agent.

    Args:
        images: RGB, in slot order.
        rig: the cameras.
        seen: LiDAR points in the cameras' pixels; without, no keypoint has a range.
    """
    sift = cv2.SIFT.create(MAX_KEYPOINTS)
    pixels, cameras, descriptors, points = [], [], [], []
    for slot, image in enumerate(images):
        found, described = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        if described is None:
            continue
        places = np.array([keypoint.pt for keypoint in found]) + 0.5
        pixels.append(places)
        cameras.append(np.full(len(places), slot))
        descriptors.append(_root(described))
        points.append(_with_ranges(places, slot, rig, seen))
    if not pixels:
        return Keypoints(np.zeros((0, 2)), np.zeros(0, int), np.zeros((0, 128), np.float32), np.zeros((0, 3)))
    return Keypoints(*map(np.concatenate, (pixels, cameras, descriptors, points)))


def _root(descriptors: Float32[np.ndarray, "n 128"]) -> Float32[np.ndarray, "n 128"]:
    """RootSIFT (Arandjelovic and Zisserman, 2012): Euclidean distances become Hellinger's."""
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return np.sqrt(descriptors / total)


def _with_ranges(
    pixels: Float[np.ndarray, "n 2"], slot: int, rig: Rig, seen: SeenPoints | None
) -> Float[np.ndarray, "n 3"]:
    """Points on the keypoints' rays, as far away as the nearest LiDAR point in the image."""
    points = np.full((len(pixels), 3), np.nan)
    here = np.flatnonzero(seen.camera == slot) if seen is not None else np.zeros(0, int)
    if seen is None or not len(here):
        return points
    row, column = np.divmod(seen.pixel[here], rig.image_size[1])
    tree = cKDTree(np.stack([column, row], axis=1) + 0.5)
    distance, nearest = tree.query(pixels, distance_upper_bound=LIDAR_RADIUS_PX)
    known = np.isfinite(distance)
    rays = np.concatenate([pixels[known], np.ones((known.sum(), 1))], axis=1) @ np.linalg.inv(rig.intrinsics[slot]).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    points[known] = transform_points(rig.agent_from_camera[slot], rays * seen.ranges[here[nearest[known]], None])
    return points


def match(a: Keypoints, b: Keypoints) -> Int[np.ndarray, "m 2"]:
    """Indices of matched keypoints, camera by camera: mutual nearest neighbors that pass the ratio test."""
    pairs = []
    for camera_a in np.unique(a.camera):
        rows = np.flatnonzero(a.camera == camera_a)
        for camera_b in np.unique(b.camera):
            columns = np.flatnonzero(b.camera == camera_b)
            if len(rows) < 2 or len(columns) < 2:
                continue
            similarity = a.descriptors[rows] @ b.descriptors[columns].T
            best, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
            first, second = -np.partition(-similarity, 1, axis=1)[:, :2].T
            distinct = 1 - first < MAX_RATIO**2 * (1 - second)  # squared distance is 2 - 2 cosine
            mutual = back[best] == np.arange(len(rows))
            kept = np.flatnonzero(distinct & mutual)
            pairs.append(np.stack([rows[kept], columns[best[kept]]], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), int)


def align_with_ranges(a: Keypoints, b: Keypoints, matched: Int[np.ndarray, "m 2"]) -> PairPose | None:
    """Pose from the matches whose points are known on both sides; ``None`` where too few agree."""
    ends = [torch.from_numpy(side.points[matched[:, end]])[None] for end, side in enumerate((a, b))]
    known = torch.stack([points.isfinite().all(dim=-1) for points in ends]).all(dim=0)
    if int(known.sum()) < MIN_AGREEING:
        return None
    points_a, points_b = (points[:, known[0]] for points in ends)
    covariances = [ray_covariance(points, RANGE_SIGMA, math.radians(BEARING_SIGMA_DEG)) for points in ends]
    covariance_a, covariance_b = (covariance[:, known[0]] for covariance in covariances)
    weight = torch.ones(points_a.shape[:2], dtype=points_a.dtype)
    tilt_sigma = math.radians(TILT_SIGMA_DEG)
    found = align(points_a, points_b, weight, covariance_a, covariance_b, tilt_sigma)
    agreeing = int((found.inlier[0] >= 0.25).sum())
    if bool(found.degenerate[0]) or agreeing < MIN_AGREEING:
        return None
    return PairPose(found.pose[0].numpy(), agreeing)


def relative_pose_of_rigs(
    a: Keypoints, b: Keypoints, matched: Int[np.ndarray, "m 2"], rigs: tuple[Rig, Rig]
) -> PairPose | None:
    """Pose from the matches and the calibration of both rigs alone; ``None`` where too few agree."""
    import poselib

    if len(matched) < MIN_INLIERS:
        return None
    groups = []
    for camera_a, camera_b in np.unique(
        np.stack([a.camera[matched[:, 0]], b.camera[matched[:, 1]]], axis=1), axis=0
    ).tolist():
        here = matched[(a.camera[matched[:, 0]] == camera_a) & (b.camera[matched[:, 1]] == camera_b)]
        group = poselib.PairwiseMatches()
        group.cam_id1, group.cam_id2 = camera_a, camera_b
        group.x1, group.x2 = a.pixels[here[:, 0]], b.pixels[here[:, 1]]
        groups.append(group)
    if len(groups) < 2 or max(len(group.x1) for group in groups) < SAMPLED_OF_ONE_GROUP:
        return None  # PoseLib would look for a sample forever
    (extrinsics_a, cameras_a), (extrinsics_b, cameras_b) = map(_for_poselib, rigs)
    pose, report = poselib.estimate_generalized_relative_pose(
        groups, extrinsics_a, cameras_a, extrinsics_b, cameras_b, RANSAC
    )
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = pose.R, pose.t
    if report["num_inliers"] < MIN_INLIERS or not np.isfinite(result).all():
        return None
    return PairPose(invert(result), report["num_inliers"])


def _for_poselib(rig: Rig) -> tuple[list[Any], list[dict[str, Any]]]:
    """Poses ``T_camera_agent`` and intrinsics of the cameras."""
    import poselib

    extrinsics, cameras = [], []
    for camera_from_agent, ((fx, _, cx), (_, fy, cy), _) in zip(
        invert(rig.agent_from_camera), rig.intrinsics.tolist(), strict=True
    ):
        pose = poselib.CameraPose()
        pose.R, pose.t = camera_from_agent[:3, :3], camera_from_agent[:3, 3]
        extrinsics.append(pose)
        height, width = rig.image_size
        cameras.append({"model": "PINHOLE", "width": width, "height": height, "params": [fx, fy, cx, cy]})
    return extrinsics, cameras


@dataclass(frozen=True)
class ClassicalPoses:
    """``T_i_j`` of all pairs of agents ``i < j``, ordered 01, 02, ..., 12, ...; ``None`` where there is none.

    Attributes:
        with_ranges: of :func:`align_with_ranges`.
        of_rigs: of :func:`relative_pose_of_rigs`; ``None`` without PoseLib.
    """

    with_ranges: tuple[PairPose | None, ...]
    of_rigs: tuple[PairPose | None, ...] | None


def classical_poses(keypoints: Sequence[Keypoints], rigs: Sequence[Rig]) -> ClassicalPoses:
    """Match all pairs of agents and find their relative poses."""
    with_ranges, of_rigs = [], []
    has_poselib = is_available()
    for i in range(len(keypoints)):
        for j in range(i + 1, len(keypoints)):
            matched = match(keypoints[i], keypoints[j])
            with_ranges.append(align_with_ranges(keypoints[i], keypoints[j], matched))
            if has_poselib:
                of_rigs.append(relative_pose_of_rigs(keypoints[i], keypoints[j], matched, (rigs[i], rigs[j])))
    return ClassicalPoses(tuple(with_ranges), tuple(of_rigs) if has_poselib else None)
