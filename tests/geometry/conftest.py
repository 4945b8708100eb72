from pathlib import Path

import numpy as np
import pytest
import yaml

from coopmap.geometry import pose_cv_from_ue, pose_from_carla
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig


@pytest.fixture(scope="session")
def real_rig(data_dir: Path) -> Rig:
    """The rig of a recorded V2XSet frame."""
    record = yaml.safe_load((data_dir / "real" / "4279_000069.yaml").read_text())
    world_from_agent = pose_from_carla(record["lidar_pose"])
    cameras = [record[f"camera{number}"] for number in OPV2V_CAMERA_OF_SLOT]
    world_from_camera = pose_from_carla([camera["cords"] for camera in cameras])
    ego = np.linalg.inv(world_from_agent) @ pose_from_carla(record["true_ego_pos"])
    return Rig(
        intrinsics=np.array([camera["intrinsic"] for camera in cameras]),
        agent_from_camera=pose_cv_from_ue(np.linalg.inv(world_from_agent) @ world_from_camera),
        image_size=(600, 800),
        ground_height_m=-ego[2, 3],
    )
