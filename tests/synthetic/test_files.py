"""The files have OPV2V's layout and agree with one another."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pypcd4 import PointCloud

from coopmap.config.synth import TownConfig
from coopmap.geometry import pose_from_carla
from coopmap.synthetic import sensors, writer


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_every_frame_of_an_agent_has_all_files(town: TownConfig, yaml_paths: list[Path]) -> None:
    for path in yaml_paths:
        suffixes = [".pcd", ".yaml", *(f"_camera{index}.png" for index in range(4))]
        assert sorted(path.parent.glob(f"{path.stem}*")) == sorted(path.with_name(path.stem + end) for end in suffixes)
        depths = Path(town.depth_root, path.relative_to(town.root)).parent.glob(f"{path.stem}*")
        assert sorted(depth.name for depth in depths) == [f"{path.stem}_camera{index}_depth.npy" for index in range(4)]
        assert (path.parents[1] / "data_protocol.yaml").is_file()
    assert {path.relative_to(town.root).parts[0] for path in yaml_paths} == {"train", "validate"}
    assert {path.stem for path in yaml_paths} == {"000060", "000070"}
    assert all(path.parent.name.isdigit() for path in yaml_paths)


def test_metadata_has_the_keys_of_a_real_recording(yaml_paths: list[Path]) -> None:
    keys = {"RSU", "ego_speed", "lidar_pose", "plan_trajectory", "predicted_ego_pos", "true_ego_pos", "vehicles"}
    for path in yaml_paths:
        content = read(path)
        assert set(content) == keys | {f"camera{index}" for index in range(4)}
        assert content["RSU"] is False
        assert set(content["camera0"]) == {"cords", "extrinsic", "intrinsic"}
        assert content["vehicles"]
        for vehicle in content["vehicles"].values():
            assert set(vehicle) == {"angle", "center", "extent", "location", "speed"}


def test_vehicles_are_the_neighbors_and_never_oneself(yaml_paths: list[Path]) -> None:
    for path in yaml_paths:
        vehicles = read(path)["vehicles"]
        agents = {int(folder.name) for folder in path.parents[1].iterdir() if folder.is_dir()}
        assert agents - set(vehicles) == {int(path.parent.name)}
        for agent in agents & set(vehicles):
            other = read(path.parents[1] / str(agent) / path.name)
            assert vehicles[agent]["location"] == other["true_ego_pos"][:3]
            assert vehicles[agent]["angle"] == other["true_ego_pos"][3:]


def test_extrinsics_follow_from_the_written_poses(yaml_paths: list[Path]) -> None:
    for path in yaml_paths:
        content = read(path)
        world_from_lidar = pose_from_carla(content["lidar_pose"])
        for index in range(4):
            camera = content[f"camera{index}"]
            expected = np.linalg.inv(pose_from_carla(camera["cords"])) @ world_from_lidar
            np.testing.assert_allclose(camera["extrinsic"], expected, atol=1e-10)


def test_rig_is_that_of_a_real_recording(yaml_paths: list[Path]) -> None:
    # T_lidar_camera of a recorded V2XSet frame, rounded to the millimeter and 0.01 degrees
    cosine, sine = np.cos(np.deg2rad(100)), np.sin(np.deg2rad(100))
    expected = {
        "camera0": [[1, 0, 0, 3.0], [0, 1, 0, 0], [0, 0, 1, -0.9]],
        "camera1": [[cosine, -sine, 0, 0.5], [sine, cosine, 0, 0.3], [0, 0, 1, -0.1]],
        "camera2": [[cosine, sine, 0, 0.5], [-sine, cosine, 0, -0.3], [0, 0, 1, -0.1]],
        "camera3": [[-1, 0, 0, -1.5], [0, -1, 0, 0], [0, 0, 1, -0.4]],
    }
    content = read(yaml_paths[0])
    for name, pose in expected.items():
        np.testing.assert_allclose(np.linalg.inv(content[name]["extrinsic"])[:3], pose, atol=1e-9)
    car = pose_from_carla(content["true_ego_pos"])
    lidar = np.linalg.inv(car) @ pose_from_carla(content["lidar_pose"])
    np.testing.assert_allclose(lidar[:3, 3], [-0.5, 0.0, 1.9], atol=1e-9)


def test_images_and_intrinsics_are_scaled_alike(yaml_paths: list[Path]) -> None:
    path = yaml_paths[0]
    image = cv2.imread(str(path.with_name(f"{path.stem}_camera0.png")))
    assert image.shape == (75, 100, 3)
    focal = 335.639852470912 / 8
    assert read(path)["camera0"]["intrinsic"] == [[focal, 0.0, 50.0], [0.0, focal, 37.5], [0.0, 0.0, 1.0]]


def test_images_show_something(yaml_paths: list[Path]) -> None:
    for path in yaml_paths:
        for index in range(4):
            image = cv2.imread(str(path.with_name(f"{path.stem}_camera{index}.png")))
            assert image.std() > 20


def test_gps_is_noisy_but_close(yaml_paths: list[Path]) -> None:
    errors = []
    for path in yaml_paths:
        content = read(path)
        guess, truth = np.array(content["predicted_ego_pos"]), np.array(content["true_ego_pos"])
        assert guess[3] == guess[5] == 0.0
        errors.append(np.linalg.norm(guess[:2] - truth[:2]))
    assert len(set(errors)) == len(errors)
    assert 0.05 < np.mean(errors) < 1.0


def test_sweep_is_ascii_pcd_with_intensity_in_red(yaml_paths: list[Path]) -> None:
    path = yaml_paths[0].with_suffix(".pcd")
    header = path.read_text().split("DATA ascii\n")[0]
    assert "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n" in header
    cloud = PointCloud.from_path(path)
    assert cloud.fields == ("x", "y", "z", "rgb")
    points = cloud.numpy(("x", "y", "z"))
    assert len(points) > 500
    reach = np.linalg.norm(points, axis=1)
    assert reach.max() < 120
    bits = cloud.numpy(("rgb",))[:, 0].astype(np.float32).view(np.uint32)
    assert not (bits & 0xFF00FFFF).any()
    np.testing.assert_allclose((bits >> 16) / 255, np.exp(-0.004 * reach), atol=0.5 / 255 + 1e-6)


def test_sweep_starts_at_the_ground_below_the_lidar(yaml_paths: list[Path]) -> None:
    for path in yaml_paths:
        points = PointCloud.from_path(path.with_suffix(".pcd")).numpy(("x", "y", "z"))
        steep = points[points[:, 2] / np.linalg.norm(points, axis=1) < np.sin(np.deg2rad(-24))]
        assert np.median(steep[:, 2]) == pytest.approx(-1.9, abs=0.15)


def test_pixel_rays_pass_through_pixel_centers() -> None:
    rays = sensors.camera_rays(0.125)
    projected = rays @ sensors.intrinsic(0.125)[[0, 1]][:, [2, 0, 1]].T * [1, -1] + [0, 75]
    np.testing.assert_allclose(projected[10, 20], [20.5, 10.5])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_image_on_a_full_disk_is_an_error_and_not_a_part_of_one(tmp_path: Path) -> None:
    file = tmp_path / "camera0.png"
    file.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*camera0\.png'$"):
        writer.write_image(file, np.zeros((4, 4, 3), np.uint8))
