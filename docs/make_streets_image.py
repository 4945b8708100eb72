"""Make docs/images/streets.png: 24 streets of all styles, as the left, front and right cameras of a car see them.

Run it in the repository: ``python docs/make_streets_image.py``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from coopmap.config.synth import EVERYDAY_STYLES, TownConfig
from coopmap.geometry import pose_from_carla
from coopmap.geometry.se3_numpy import rotate
from coopmap.synthetic import sensors
from coopmap.synthetic.street import StreetView, plan_street_drive, street_of

COLUMNS, ROWS = 3, 8
SCALE, SHRINK = 0.3, 2
LEFT_FRONT_RIGHT = (2, 0, 1)
GAP = 6


def strip(cfg: TownConfig, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """What the first agent of a street sees."""
    street, drive = street_of(cfg, "test", index), plan_street_drive(cfg, "test", index)
    own = next(car for car in drive.cars[0] if car.id == drive.agents[0])
    view = StreetView(street, [car for car in drive.cars[0] if car is not own])
    rays = sensors.camera_rays(SCALE)
    images = []
    rig = sensors.OPV2V_MOUNTING
    poses = pose_from_carla(rig.camera_cords(rig.lidar_cords(own.pose_ue)))
    for camera in LEFT_FRONT_RIGHT:
        pose = poses[camera]
        _, color = view.look(pose[:3, 3], rotate(pose, rays.reshape(-1, 3)), 1 / (sensors.FOCAL * SCALE))
        images.append(view.develop(color.reshape(rays.shape), (index, camera)))
    shown = np.concatenate(images, axis=1)
    shown = cv2.resize(shown, None, fx=1 / SHRINK, fy=1 / SHRINK, interpolation=cv2.INTER_AREA)
    return np.round(shown * 255).astype(np.uint8)


def main() -> None:
    """Write the picture."""
    strips = []
    for number in range(COLUMNS * ROWS):
        style = EVERYDAY_STYLES[number % len(EVERYDAY_STYLES)]
        strips.append(strip(TownConfig(towns="per_scenario", style=style), number))
    height, width = strips[0].shape[:2]
    sheet = np.full((ROWS * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for number, image in enumerate(strips):
        row, column = divmod(number, COLUMNS)
        sheet[row * (height + GAP) :, column * (width + GAP) :][:height, :width] = image
    coarse = sheet // 10 * 10 + 5  # compresses better, looks the same
    path = Path(__file__).parent / "images" / "streets.png"
    cv2.imwrite(str(path), coarse[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
