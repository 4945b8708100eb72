"""Synthetic streets that render in seconds, the mesh of a frame, to check ground truth against, and worlds far away."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh
import yaml

from coopmap.config.synth import LidarConfig, ScenarioCounts, TownConfig
from coopmap.geometry import points_cv_from_ue
from coopmap.synthetic.scenario import scenario_index
from coopmap.synthetic.surface import merge
from coopmap.synthetic.worlds import plan_drive, world_of

UTM = np.array([691000.0, 5336000.0, 520.0])
"""Easting, northing and height of a town in Bavaria: what a recording with real GPS has for coordinates."""


def tiny_streets(root: str, depth_root: str | None, **changes: Any) -> TownConfig:
    """Streets that render in seconds: two of training and one of validation, 100 x 75 pixels."""
    values: dict[str, Any] = {
        "towns": "per_scenario",
        "scenarios": ScenarioCounts(train=2, validate=1, test=0),
        "agents_min": 2,
        "agents_max": 3,
        "image_scale": 0.125,
        "lidar": LidarConfig(beams=16, azimuth_steps=180),
        "workers": 1,
    }
    return TownConfig(root=root, depth_root=depth_root, **(values | changes))


def as_jpeg(folder: Path) -> None:
    """Turn the PNG files below a folder into JPEG files."""
    for file in sorted(folder.rglob("*.png")):
        assert cv2.imwrite(str(file.with_suffix(".jpg")), cv2.imread(str(file)))
        file.unlink()


def build_scene(
    cfg: TownConfig, split: str, scenario: str, frame: str, without: str | int | None = None
) -> trimesh.Trimesh:
    """Mesh of the town and all its cars at one frame: world frame, OpenCV axes, meters.

    Args:
        cfg: configuration of the town; :func:`coopmap.synthetic.read_config` reads that of a rendered one.
        split: ``train``, ``validate`` or ``test``.
        scenario: folder name.
        frame: frame name.
        without: id of a moving car to leave out; no agent sees its own body.

    Raises:
        ValueError: if the scenario has no such frame.
    """
    index = scenario_index(scenario)
    drive = plan_drive(cfg, split, index)
    if frame not in drive.frames:
        raise ValueError(f"{split}/{scenario} has the frames {', '.join(drive.frames)}, not {frame}")
    hidden = None if without is None else int(without)
    moving = [car.surface() for car in drive.cars[drive.frames.index(frame)] if car.id != hidden]
    corners = points_cv_from_ue(merge([world_of(cfg, split, index).surface, *moving]).triangles)
    # the change of axes mirrors; corners in reverse keep the faces turned outward
    return trimesh.Trimesh(
        vertices=corners[:, ::-1].reshape(-1, 3), faces=np.arange(3 * len(corners)).reshape(-1, 3), process=False
    )


def move_world(folder: Path, shift: np.ndarray) -> None:
    """Shift every position that metadata files hold."""
    for path in folder.rglob("*.yaml"):
        content = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
        if "lidar_pose" not in content:
            continue
        cameras = [content[f"camera{number}"]["cords"] for number in range(4)]
        boxes = [vehicle["location"] for vehicle in content["vehicles"].values()]
        poses = [content[key] for key in ("lidar_pose", "true_ego_pos", "predicted_ego_pos")]
        for values in [*poses, *cameras, *boxes]:
            values[:3] = (np.array(values[:3]) + shift).tolist()
        path.write_text(yaml.safe_dump(content))
