"""Files of one agent and one frame, as OPV2V writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jaxtyping import Float, UInt8

from coopmap.geometry import carla_from_pose
from coopmap.report.files import write_bytes
from coopmap.synthetic.cars import Car

SWEEP_DECIMALS = 4
"""Of the meters in a sweep."""

_ATTENUATION_PER_M = 0.004  # CARLA's default atmosphere; real LiDAR sweeps show exp(-0.004 d)


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write plain YAML; short lists stay on one line."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    write_bytes(yaml.dump(content, Dumper=dumper, default_flow_style=None, width=4096).encode(), path)


def frame_metadata(
    lidar_pose: Float[np.ndarray, "6"],
    cords: Float[np.ndarray, "4 6"],
    extrinsics: Float[np.ndarray, "4 4 4"],
    intrinsic: Float[np.ndarray, "3 3"],
    car: Car,
    noisy_pose: Float[np.ndarray, "6"],
    plan: Float[np.ndarray, "p 3"],
    neighbors: Iterable[Car],
) -> dict[str, Any]:
    """Content of ``{frame}.yaml``."""
    cameras = {
        f"camera{index}": {
            "cords": cords[index].tolist(),
            "extrinsic": extrinsics[index].tolist(),
            "intrinsic": intrinsic.tolist(),
        }
        for index in range(len(cords))
    }
    return {
        "RSU": False,
        **cameras,
        "ego_speed": float(car.speed_kmh),
        "lidar_pose": lidar_pose.tolist(),
        "plan_trajectory": plan.tolist(),
        "predicted_ego_pos": noisy_pose.tolist(),
        "true_ego_pos": carla_from_pose(car.pose_ue).tolist(),
        "vehicles": {other.id: _vehicle(other) for other in neighbors},
    }


def _vehicle(car: Car) -> dict[str, Any]:
    cords = carla_from_pose(car.pose_ue).tolist()
    return {
        "angle": cords[3:],
        "center": list(car.model.center),
        "extent": list(car.model.extent),
        "location": cords[:3],
        "speed": float(car.speed_kmh),
    }


def write_image(path: Path, rgb: UInt8[np.ndarray, "h w 3"], noisy: bool = False) -> None:
    """Write an RGB PNG; of ``noisy`` images a simpler compression is both quicker and smaller."""
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY] if noisy else []
    _, encoded = cv2.imencode(".png", rgb[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1, *strategy])
    write_bytes(encoded.tobytes(), path)  # OpenCV overlooks that a disk is full


def write_sweep(path: Path, points: Float[np.ndarray, "n 3"]) -> None:
    """Write a LiDAR sweep as ASCII PCD; intensity sits in the red byte of ``rgb``, as in OPV2V."""
    intensity = np.exp(-_ATTENUATION_PER_M * np.linalg.norm(points, axis=1))
    codes = np.round(intensity * 255).astype(np.uint32)
    names = [f"{value:.9g}" for value in (np.arange(256, dtype=np.uint32) << 16).view(np.float32)]
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\n"
        f"COUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA ascii\n"
    )
    # one flat tuple and one format: thousands of small lists would burden the garbage collector
    values: list[float | str] = [0.0] * (4 * len(points))
    for axis in range(3):
        values[axis::4] = points[:, axis].tolist()
    values[3::4] = [names[code] for code in codes.tolist()]
    line = f"%.{SWEEP_DECIMALS}f " * 3 + "%s\n"
    write_bytes((header + line * len(points) % tuple(values)).encode(), path)
