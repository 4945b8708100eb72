import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry import pose_cv_from_ue, pose_from_carla
from coopmap.geometry.boxes import inside_boxes


def test_a_pitched_box_worked_out_by_hand():
    # A car of 4 x 2 x 1 m, 10 m ahead, its nose up by 30 degrees; axes right, down, forward.
    pose = pose_cv_from_ue(pose_from_carla([10, 0, 0, 0, 0, 30]))[None]
    half = np.array([[1.0, 0.5, 2.0]])
    nose = np.array([0, -np.sin(np.pi / 6), np.cos(np.pi / 6)])
    up = np.array([0, -np.cos(np.pi / 6), -np.sin(np.pi / 6)])
    center = np.array([0, 0, 10.0])
    points = np.stack([center + 1.95 * nose, center - 1.95 * nose, center + 2.05 * nose, center + 0.45 * up])
    points = np.concatenate([points, [center + 0.55 * up, center - 0.55 * up, center + np.array([0, 0, 1.95]), center]])
    assert inside_boxes(points, pose, half).tolist() == [True, True, False, True, False, False, False, True]
    # sides and top move out by the margin, the bottom up by the floor
    assert inside_boxes(points, pose, half, margin_m=0.1)[[2, 4, 5]].tolist() == [True, True, False]
    low = np.array([center - 0.45 * up])
    assert inside_boxes(low, pose, half, margin_m=0.1).tolist() == [True]
    assert inside_boxes(low, pose, half, margin_m=0.1, floor_m=0.1).tolist() == [False]


@given(seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 500.0]))
def test_any_box_is_the_union_of_single_tests_in_the_boxes_own_frames(seed, offset):
    rng = np.random.default_rng(seed)
    cords = np.concatenate([rng.uniform(-20, 20, (6, 3)) + offset, rng.uniform(-180, 180, (6, 3))], axis=1)
    poses, half = pose_cv_from_ue(pose_from_carla(cords)), rng.uniform(0.5, 4, (6, 3))
    box = rng.integers(6, size=400)
    local = rng.uniform(-1.5, 1.5, (400, 3)) * half[box]
    points = np.einsum("nij,nj->ni", poses[box, :3, :3], local) + poses[box, :3, 3]
    back = np.einsum("mji,nmj->nmi", poses[:, :3, :3], points[:, None] - poses[:, :3, 3])
    slack = np.abs(np.abs(back) - half).min(axis=(1, 2)) > 1e-6
    expected = (np.abs(back) <= half).all(axis=2).any(axis=1)
    assert expected.any()
    np.testing.assert_array_equal(inside_boxes(points, poses, half)[slack], expected[slack])


def test_no_boxes_and_no_points():
    assert inside_boxes(np.zeros((3, 3)), np.zeros((0, 4, 4)), np.zeros((0, 3))).tolist() == [False] * 3
    assert inside_boxes(np.zeros((0, 3)), np.eye(4)[None], np.ones((1, 3))).shape == (0,)
