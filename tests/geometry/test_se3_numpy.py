"""Laws of rigid transforms, and agreement with the torch side."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry import pose_from_carla, se3, se3_numpy
from coopmap.geometry.poses import heading_deg, rotation_about_y

POSES = st.lists(
    st.tuples(*[st.floats(-200, 200)] * 3, *[st.floats(-180, 180)] * 3), min_size=1, max_size=3
).map(pose_from_carla)  # fmt: skip
ROUNDING = 1e-12
"""Of float64 products of coordinates of some hundred meters: eps * 400 m * a few terms."""


@given(POSES)
def test_inverse_and_relative_pose(pose):
    identity = np.broadcast_to(np.eye(4), pose.shape)
    np.testing.assert_allclose(se3_numpy.invert(pose) @ pose, identity, atol=ROUNDING)
    np.testing.assert_allclose(se3_numpy.invert(pose), np.linalg.inv(pose), atol=ROUNDING)
    np.testing.assert_allclose(pose[0] @ se3_numpy.relative_pose(pose[0], pose), pose, atol=ROUNDING)


@given(POSES, st.integers(0, 2**32 - 1))
def test_points_translate_and_directions_do_not(pose, seed):
    points = np.random.default_rng(seed).uniform(-50, 50, (len(pose), 7, 3))
    homogeneous = np.concatenate([points, np.ones((len(pose), 7, 1))], axis=-1)
    moved = se3_numpy.transform_points(pose, points)
    np.testing.assert_allclose(moved, np.einsum("bij,bnj->bni", pose, homogeneous)[..., :3], atol=ROUNDING)
    np.testing.assert_allclose(se3_numpy.rotate(pose, points), moved - pose[:, None, :3, 3], atol=ROUNDING)
    np.testing.assert_allclose(se3_numpy.transform_points(se3_numpy.invert(pose), moved), points, atol=ROUNDING)
    image = points.reshape(-1, 1, 7, 3)  # one pose, points of any shape
    np.testing.assert_allclose(se3_numpy.transform_points(pose[0], image)[0, 0], moved[0], atol=ROUNDING)
    np.testing.assert_allclose(se3_numpy.transform_points(pose, points[0])[0], moved[0], atol=ROUNDING)  # to all poses


@given(POSES, st.integers(0, 2**32 - 1))
def test_agrees_with_the_torch_side(pose, seed):
    points = np.random.default_rng(seed).uniform(-50, 50, (len(pose), 7, 3))
    t_pose, t_points = torch.from_numpy(pose), torch.from_numpy(points)
    for ours, theirs in (
        (se3_numpy.invert(pose), se3.invert(t_pose)),
        (se3_numpy.relative_pose(pose[:1], pose), se3.relative_pose(t_pose[:1], t_pose)),
        (se3_numpy.transform_points(pose, points), se3.transform_points(t_pose, t_points)),
        (se3_numpy.rotate(pose, points), se3.rotate(t_pose, t_points)),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=ROUNDING)
    # near pi the torch side takes an arc sine near 1, which halves the digits
    angle = se3_numpy.rotation_angle(pose[:, :3, :3])
    np.testing.assert_allclose(angle, se3.rotation_angle(t_pose[:, :3, :3]).numpy(), atol=1e-7)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-6, 1.0, np.pi / 2, 3.14159, np.pi - 1e-9, np.pi])
def test_rotation_angle_is_exact_from_zero_to_pi(angle):
    rotation = pose_from_carla([0, 0, 0, 0, np.rad2deg(angle), 0])[:3, :3]
    assert se3_numpy.rotation_angle(rotation) == pytest.approx(angle, abs=2e-15)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-6, 1.0, np.pi / 2, np.pi])
def test_the_angle_between_vectors_of_any_length_is_exact(angle):
    turned = 3 * np.array([np.cos(angle), 0, np.sin(angle)])
    assert se3_numpy.angle_between(np.array([2.0, 0, 0]), turned) == pytest.approx(angle, abs=2e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_arguments(dtype):
    pose, points = np.eye(4, dtype=dtype), np.ones((5, 3), dtype=dtype)
    for result in (
        se3_numpy.invert(pose),
        se3_numpy.transform_points(pose, points),
        se3_numpy.rotate(pose, points),
        se3_numpy.rotation_angle(pose[:3, :3]),
    ):
        assert result.dtype == dtype


def test_heading_is_positive_to_the_right_whatever_the_tilt():
    right, nose_down = (rotation_about_y(np.deg2rad(angle)) for angle in (30.0, -150.0))
    nose_down[:3, :3] = nose_down[:3, :3] @ [[1, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]]
    np.testing.assert_allclose(heading_deg(np.stack([right, nose_down])), [30.0, -150.0])
