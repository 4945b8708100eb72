"""What would be used without training: features in the camera images, matched, and relative poses of pairs of agents.

Keypoints of any kind (:mod:`~coopmap.evaluation.sift`, :mod:`~coopmap.evaluation.xfeat`) between all cameras of two
agents, then either of

- PoseLib's generalized relative pose (optional extra ``matching``): images and the calibrated rig alone. Its scale
  comes from the baselines between an agent's cameras, which are short;
- alignment of the matched points, whose ranges are those of the LiDAR at the keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from coopmap.evaluation.keypoints import Features, Keypoints, match_cameras
from coopmap.geometry.alignment import align, ray_covariance
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert

INSTALL_HINT = "not installed: pip install coopmap[matching]"
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


class PairPose(NamedTuple):
    """``T_i_j`` of a pair, and how many matches agree with it."""

    pose: Float[np.ndarray, "4 4"]
    agreeing: int


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


def classical_poses(features: Features, keypoints: Sequence[Keypoints], rigs: Sequence[Rig]) -> ClassicalPoses:
    """Match all pairs of agents and find their relative poses."""
    with_ranges, of_rigs = [], []
    has_poselib = is_available()
    for i, j in combinations(range(len(keypoints)), 2):
        both, pair = (keypoints[i], keypoints[j]), (rigs[i], rigs[j])
        matched = match_cameras(features, *both, pair)
        with_ranges.append(align_with_ranges(*both, matched))
        if has_poselib:
            of_rigs.append(relative_pose_of_rigs(*both, matched, pair))
    return ClassicalPoses(tuple(with_ranges), tuple(of_rigs) if has_poselib else None)
