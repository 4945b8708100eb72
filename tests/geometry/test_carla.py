import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry import (
    carla_from_pose,
    points_cv_from_ue,
    points_ue_from_cv,
    pose_cv_from_ue,
    pose_from_carla,
    pose_ue_from_cv,
)

angles = st.floats(-179.0, 179.0)
pitches = st.floats(-85.0, 85.0)
lengths = st.floats(-500.0, 500.0)
cords = st.tuples(lengths, lengths, lengths, angles, angles, pitches)


def test_extrinsics_of_a_real_frame_follow_from_cords(data_dir):
    record = yaml.safe_load((data_dir / "real" / "4279_000069.yaml").read_text())
    world_from_lidar = pose_from_carla(record["lidar_pose"])
    for number in range(4):
        camera = record[f"camera{number}"]
        camera_from_lidar = np.linalg.inv(pose_from_carla(camera["cords"])) @ world_from_lidar
        np.testing.assert_allclose(camera_from_lidar, camera["extrinsic"], atol=1e-5)


def test_positive_pitch_lifts_the_nose_and_positive_roll_lowers_the_right_side():
    ahead_50m, right_1m = np.array([50.0, 0, 0, 1]), np.array([0, 1.0, 0, 1])
    climbing = pose_from_carla([0, 0, 0, 0, 0, 5.0])
    assert (climbing @ ahead_50m)[2] == pytest.approx(50 * np.sin(np.deg2rad(5.0)))  # 4.36 m up
    rolled = pose_from_carla([0, 0, 0, 3.0, 0, 0])
    assert (rolled @ right_1m)[2] == pytest.approx(-np.sin(np.deg2rad(3.0)))


def test_a_right_handed_euler_helper_is_meters_off_on_a_slope():
    """The common mistake: Rz Ry Rx with right-hand-rule signs, which agrees only on flat roads."""

    def right_handed(roll, yaw, pitch):
        (cr, cy, cp), (sr, sy, sp) = np.cos([roll, yaw, pitch]), np.sin([roll, yaw, pitch])
        about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        return about_z @ about_y @ about_x

    roll, yaw, pitch = 3.0, 40.0, 5.0
    point = np.array([50.0, 0, 0])
    right = pose_from_carla([0, 0, 0, roll, yaw, pitch])[:3, :3] @ point
    wrong = right_handed(*np.deg2rad([roll, yaw, pitch])) @ point
    assert right[2] == pytest.approx(4.36, abs=0.01)  # uphill, as CARLA has it
    assert wrong[2] == pytest.approx(-4.36, abs=0.01)  # downhill
    assert np.linalg.norm(right - wrong) > 8.0
    flat = pose_from_carla([0, 0, 0, 0, yaw, 0])[:3, :3] @ point
    np.testing.assert_allclose(flat, right_handed(0, np.deg2rad(yaw), 0) @ point)


@given(cords)
def test_cords_round_trip(vector):
    np.testing.assert_allclose(carla_from_pose(pose_from_carla(vector)), vector, atol=1e-8)


@given(cords, st.tuples(lengths, lengths, lengths))
def test_basis_change_commutes_with_transforming_points(vector, point):
    pose, point = pose_from_carla(vector), np.array(point)
    in_ue = pose[:3, :3] @ point + pose[:3, 3]
    pose_cv = pose_cv_from_ue(pose)
    in_cv = pose_cv[:3, :3] @ points_cv_from_ue(point) + pose_cv[:3, 3]
    np.testing.assert_allclose(points_cv_from_ue(in_ue), in_cv, atol=1e-9)
    np.testing.assert_allclose(points_ue_from_cv(in_cv), in_ue, atol=1e-9)
    np.testing.assert_allclose(pose_ue_from_cv(pose_cv), pose, atol=1e-12)
    assert np.linalg.det(pose_cv[:3, :3]) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [[1, 2, 3], [0, 0, 0, 0, 0, float("nan")]])
def test_malformed_cords_are_refused(bad):
    with pytest.raises(ValueError, match="CARLA pose"):
        pose_from_carla(bad)
