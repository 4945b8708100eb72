"""A dataset written by hand in a temporary folder, and a scene whose every ray is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from coopmap.geometry import carla_from_pose, pose_from_carla

FOCAL_PER_WIDTH = 335.639852470912 / 800
MOUNTS = {  # camera number: (x, y, z, roll, yaw, pitch) in the LiDAR frame, CARLA axes; the rig of V2XSet
    0: (3.0, 0.0, -0.9, 0.0, 0.0, 0.0),
    1: (0.5, 0.3, -0.1, 0.0, 100.0, 0.0),
    2: (0.5, -0.3, -0.1, 0.0, -100.0, 0.0),
    3: (-1.5, 0.0, -0.4, 0.0, 180.0, 0.0),
}
LIDAR_IN_EGO = (-0.5, 0.0, 1.9, 0.0, 0.0, 0.0)


def metadata(lidar_cords: tuple[float, ...], size: tuple[int, int], **changes: Any) -> dict[str, Any]:
    """Content of a YAML file; the GPS is exact, and ``changes`` replace top-level keys."""
    world_from_lidar = pose_from_carla(lidar_cords)
    focal = FOCAL_PER_WIDTH * size[1]
    ego = carla_from_pose(world_from_lidar @ np.linalg.inv(pose_from_carla(LIDAR_IN_EGO))).tolist()
    content: dict[str, Any] = {
        "ego_speed": 36.0,
        "lidar_pose": list(lidar_cords),
        "predicted_ego_pos": ego,
        "true_ego_pos": ego,
        "vehicles": {},
    }
    for number, mount in MOUNTS.items():
        lidar_from_camera = pose_from_carla(mount)
        content[f"camera{number}"] = {
            "cords": carla_from_pose(world_from_lidar @ lidar_from_camera).tolist(),
            "extrinsic": np.linalg.inv(lidar_from_camera).tolist(),
            "intrinsic": [[focal, 0.0, size[1] / 2], [0.0, focal, size[0] / 2], [0.0, 0.0, 1.0]],
        }
    return content | changes


def write_pcd(path: Path, points_ue: np.ndarray) -> None:
    """ASCII PCD with the fields ``x y z rgb``, as Open3D writes it."""
    n = len(points_ue)
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\n"
        f"COUNT 1 1 1 1\nWIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA ascii\n"
    )
    path.write_text(header + "".join(f"{x:.8g} {y:.8g} {z:.8g} 1.78e-38\n" for x, y, z in points_ue.tolist()))


@dataclass(frozen=True)
class DatasetWriter:
    """Writes files in the OPV2V layout."""

    root: Path
    size: tuple[int, int] = (60, 80)

    def folder(self, scenario: str, agent: str, split: str = "validate") -> Path:
        path = self.root / split / scenario / agent
        path.mkdir(parents=True, exist_ok=True)
        return path

    def touch(self, scenario: str, agent: str, *frames: str, split: str = "validate") -> None:
        """Empty YAML files: enough for an index."""
        for frame in frames:
            (self.folder(scenario, agent, split) / f"{frame}.yaml").touch()

    def agent(
        self,
        scenario: str,
        agent: str,
        frame: str,
        lidar_cords: tuple[float, ...] = (0.0, 0.0, 1.9, 0.0, 0.0, 0.0),
        points_ue: np.ndarray | None = None,
        **changes: Any,
    ) -> Path:
        """One agent's YAML and images (camera ``i`` uniformly ``(10 i, 100, 200)``); a sweep if points are given."""
        folder = self.folder(scenario, agent)
        path = folder / f"{frame}.yaml"
        path.write_text(yaml.safe_dump(metadata(lidar_cords, self.size, **changes)))
        for number in MOUNTS:
            image = np.full((*self.size, 3), (200, 100, 10 * number), dtype=np.uint8)  # BGR
            cv2.imwrite(str(folder / f"{frame}_camera{number}.png"), image)
        if points_ue is not None:
            write_pcd(folder / f"{frame}.pcd", points_ue)
        return path


@pytest.fixture
def writer(tmp_path: Path) -> DatasetWriter:
    root = tmp_path / "opv2v"
    root.mkdir()
    return DatasetWriter(root)


@pytest.fixture
def real_yaml(data_dir: Path) -> Path:
    return data_dir / "real" / "4279_000069.yaml"


Cast = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture
def cast_street() -> Cast:
    """Range of rays (origins and unit directions, agent axes) in a street: road, wall, parked cars, a van ahead.

    The road is 1.9 m below the LiDAR at the origin. Infinite where nothing is hit.
    """
    road = 1.9
    boxes = np.array(
        [  # lower and upper corner: right, down, forward
            ((-1.0, road - 1.5, 9.0), (1.0, road, 13.5)),
            ((2.5, road - 1.5, 4.0), (4.5, road, 8.5)),
            ((-4.5, road - 1.5, 7.0), (-2.5, road, 11.5)),
            ((-4.5, road - 1.5, -12.0), (-2.5, road, -7.5)),
            ((-1.0, road - 1.5, -16.0), (1.0, road, -11.5)),
            ((2.4, road - 3.0, 18.0), (4.6, road, 30.0)),
            ((-40.0, -10.0, 60.0), (40.0, road, 61.0)),
        ]
    )

    def cast(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        down = np.where(direction[..., 1] > 1e-9, direction[..., 1], 1e-9)
        nearest = np.where(direction[..., 1] > 1e-9, (road - origin[..., 1]) / down, np.inf)
        safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        for low, high in boxes:
            a, b = (low - origin) / safe, (high - origin) / safe
            enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
            nearest = np.minimum(nearest, np.where((enter <= leave) & (enter > 0), enter, np.inf))
        return nearest

    return cast


@pytest.fixture
def sweep_street(cast_street: Cast) -> Callable[[tuple[float, float, float]], np.ndarray]:
    """A 64-beam sweep of the street, -25 to 2 degrees, from a position in the agent frame (range 120 m)."""

    def sweep(position: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
        elevation, azimuth = np.meshgrid(np.deg2rad(np.linspace(-25, 2, 64)), np.arange(1016) * 2 * np.pi / 1016)
        direction = np.stack(
            [np.cos(elevation) * np.sin(azimuth), -np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], axis=-1
        ).reshape(-1, 3)
        origin = np.array(position)
        distance = cast_street(origin, direction)
        hit = distance < 120
        return (origin + direction[hit] * distance[hit, None]).astype(np.float32)

    return sweep
