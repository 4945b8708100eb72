from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.data.opv2v import CorruptFrameError, FrameError, MetadataError, MissingFileError, read_agent
from coopmap.geometry import points_cv_from_ue, pose_cv_from_ue, pose_from_carla, pose_ue_from_cv
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

SLOPE = (120.0, -40.0, 12.0, 3.0, 40.0, 5.0)  # 3 degrees of roll, 40 of yaw, 5 of pitch


def test_real_extrinsics_are_reproduced_from_cords(real_yaml):
    recorded = yaml.safe_load(real_yaml.read_text())
    rig = read_agent(real_yaml).rig
    for slot, camera in enumerate(OPV2V_CAMERA_OF_SLOT):
        camera_from_lidar = np.linalg.inv(pose_ue_from_cv(rig.agent_from_camera[slot]))
        np.testing.assert_allclose(camera_from_lidar, recorded[f"camera{camera}"]["extrinsic"], atol=1e-5)


def test_real_rig(real_yaml):
    agent = read_agent(real_yaml)
    assert agent.rig.image_size == (600, 800)
    assert agent.rig.ground_height_m == pytest.approx(1.9, abs=1e-3)
    optical_axes = agent.rig.agent_from_camera[:, :3, 2]
    ten = np.deg2rad(10)  # the side cameras look ten degrees backwards
    expected = [(0, 0, 1), (-np.cos(ten), 0, -np.sin(ten)), (0, 0, -1), (np.cos(ten), 0, -np.sin(ten))]
    np.testing.assert_allclose(optical_axes, expected, atol=1e-4)
    np.testing.assert_allclose(agent.rig.agent_from_camera[0, :3, 3], (0, 0.9, 3.0), atol=1e-4)
    assert agent.speed == pytest.approx(16.512588725917475 / 3.6)
    assert not agent.is_rsu
    assert agent.pose[:3, 3] == pytest.approx((-19.80833625793457, -1.9313920736312866, -275.6085205078125))


def test_real_gps_is_moved_from_the_ego_frame_to_the_lidar(real_yaml):
    agent = read_agent(real_yaml)
    # predicted_ego_pos minus true_ego_pos, in OpenCV axes: right, down, forward of the world
    gps_error = points_cv_from_ue(np.array([0.014892578, 0.029249477, -0.005279763]))
    error = agent.pose_prior[:3, 3] - agent.pose[:3, 3]
    # compass and zero pitch turn the 2 m lever between ego frame and LiDAR by 0.04 and 0.14 degrees: millimeters
    np.testing.assert_allclose(error, gps_error, atol=6e-3)


def test_exact_gps_gives_the_pose_on_a_slope(writer):
    agent = read_agent(writer.agent("s", "1", "000001", SLOPE))
    np.testing.assert_allclose(agent.pose_prior, agent.pose, atol=1e-9)
    assert agent.rig.ground_height_m == pytest.approx(1.9)


def right_handed_euler(cords):
    """The mistake: CARLA's angles given to a right-handed Euler helper, ``Rz(yaw) Ry(pitch) Rx(roll)``."""
    return pose_from_carla((*cords[:3], -cords[3], cords[4], -cords[5]))


def test_sloped_road_rises_ahead_only_in_the_right_convention(writer):
    agent = read_agent(writer.agent("s", "1", "000001", SLOPE))
    ahead = np.array([0.0, 0.0, 50.0, 1.0])  # 50 m ahead along the nose
    to_the_right = np.array([10.0, 0.0, 0.0, 1.0])
    right = (agent.pose @ ahead)[:3]
    wrong = (pose_cv_from_ue(right_handed_euler(SLOPE)) @ ahead)[:3]
    nose_up_m = 50 * np.sin(np.deg2rad(5))
    assert -right[1] - 12.0 == pytest.approx(nose_up_m)  # the nose is lifted: 4.36 m higher
    assert -wrong[1] - 12.0 == pytest.approx(-nose_up_m)  # the mistake drives into the ground
    assert np.linalg.norm(right - wrong) == pytest.approx(2 * nose_up_m)  # 8.7 m
    # positive roll lowers the right side
    assert -(agent.pose @ to_the_right)[1] - 12.0 == pytest.approx(-10 * np.cos(np.deg2rad(5)) * np.sin(np.deg2rad(3)))


def test_wrong_convention_is_caught_by_the_recorded_extrinsic(writer):
    path = writer.agent("s", "1", "000001", SLOPE)
    content = yaml.safe_load(path.read_text())
    world_from_lidar, world_from_camera = (right_handed_euler(cords) for cords in (SLOPE, content["camera2"]["cords"]))
    content["camera2"]["extrinsic"] = (np.linalg.inv(world_from_camera) @ world_from_lidar).tolist()
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(MetadataError, match=rf"{path}: camera2: 'extrinsic' is 0\.\d+ off"):
        read_agent(path)


def test_vehicle_box_is_centerd_and_in_box_axes(writer):
    vehicle = {
        "angle": [0.0, 90.0, 0.0],  # faces +y of CARLA
        "center": [1.0, 0.0, 0.7],
        "extent": [2.4, 1.0, 0.75],
        "location": [10.0, 20.0, 0.5],
        "speed": 18.0,
    }
    boxes = read_agent(writer.agent("s", "1", "000001", vehicles={12: vehicle})).vehicles
    assert boxes.ids.tolist() == [12]
    np.testing.assert_allclose(boxes.pose[0, :3, 3], (21.0, -1.2, 10.0), atol=1e-9)  # y, -z, x of CARLA
    np.testing.assert_allclose(boxes.pose[0, :3, 2], (1, 0, 0), atol=1e-9)  # its forward axis
    np.testing.assert_allclose(boxes.half_extents, [(1.0, 0.75, 2.4)])
    assert boxes.speed == pytest.approx([5.0])


def test_no_vehicles_around(writer):
    boxes = read_agent(writer.agent("s", "1", "000001")).vehicles
    assert boxes.pose.shape == (0, 4, 4)
    assert boxes.half_extents.shape == (0, 3)


def test_roadside_unit_stands_above_the_vehicles_around(writer):
    def vehicle(z):
        return {"angle": [0] * 3, "center": [0] * 3, "extent": [1] * 3, "location": [0, 0, z], "speed": 0}

    pole = (0.0, 0.0, 6.0, 0.0, 0.0, 0.0)
    path = writer.agent(
        "s",
        "-1",
        "000001",
        pole,
        RSU=True,
        true_ego_pos=list(pole),
        vehicles={1: vehicle(0.1), 2: vehicle(-0.1), 3: vehicle(0)},
    )
    agent = read_agent(path)
    assert agent.is_rsu
    assert agent.rig.ground_height_m == pytest.approx(6.0)


def remove(key):
    return lambda content: content.pop(key)


def put(section, key, value):
    return lambda content: content[section].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("lidar_pose"), "key 'lidar_pose' is missing"),
        (remove("camera2"), "key 'camera2' is missing"),
        (lambda content: content["camera3"].pop("cords"), "key 'camera3.cords' is missing"),
        (put("camera1", "cords", [1, 2, 3]), "key 'camera1.cords' must hold finite numbers of shape"),
        (put("camera1", "cords", ["a"] * 6), "key 'camera1.cords' must hold"),
        (lambda content: content.update(ego_speed=float("nan")), "key 'ego_speed' must hold finite"),
        (put("camera0", "intrinsic", [[300, 0, 50], [0, 300, 30], [0, 0, 1]]), "cameras differ in image size"),
        (put("camera0", "intrinsic", [[300, 9, 40], [0, 300, 30], [0, 0, 1]]), "no pinhole matrix without skew"),
        (put("vehicles", 4312, {"angle": [0, 0, 0]}), "key 'vehicles.4312.location' is missing"),
        (put("vehicles", 4312, 7), "key 'vehicles.4312' is no mapping"),
        (lambda content: content.update(true_ego_pos=[0, 0, 5, 0, 0, 0]), "lies 3.10 m below the ground"),
    ],
)
def test_bad_content_names_file_and_key(writer, change, message):
    path = writer.agent("s", "1", "000001")
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(MetadataError, match=f"{path}.*{message}"):
        read_agent(path)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.7, 0.9])
def test_truncated_yaml_names_the_file(writer, fraction):
    path = writer.agent("s", "1", "000001")
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(FrameError, match=str(path)):
        read_agent(path)


def test_cut_inside_a_list_is_not_valid_yaml(tmp_path):
    path = tmp_path / "000001.yaml"
    path.write_text("lidar_pose: [1.0, 2.0,")
    with pytest.raises(CorruptFrameError, match=rf"{path}: not valid YAML near line"):
        read_agent(path)


def test_missing_yaml(tmp_path):
    with pytest.raises(MissingFileError, match=r"000001\.yaml: no such file"):
        read_agent(tmp_path / "000001.yaml")


def test_yaml_cannot_run_code(tmp_path):
    path, witness = tmp_path / "000001.yaml", tmp_path / "witness"
    path.write_text(f"lidar_pose: !!python/object/apply:os.mkdir [{witness}]")
    with pytest.raises(CorruptFrameError, match=str(path)):
        read_agent(path)
    assert not witness.exists()


@pytest.mark.parametrize("flow", [True, False, None])
def test_skipping_the_vehicles_changes_nothing_else(tmp_path, real_yaml, flow):
    content = yaml.safe_load(Path(real_yaml).read_text())
    path = tmp_path / "000069.yaml"
    path.write_text(yaml.safe_dump(content | {"zone": "after the vehicles"}, default_flow_style=flow))
    whole, quick = read_agent(path), read_agent(path, with_vehicles=False)
    assert quick.vehicles is None
    assert len(whole.vehicles.ids) == len(content["vehicles"])
    np.testing.assert_array_equal(quick.pose, whole.pose)
    np.testing.assert_array_equal(quick.pose_prior, whole.pose_prior)
    np.testing.assert_array_equal(quick.rig.agent_from_camera, whole.rig.agent_from_camera)
