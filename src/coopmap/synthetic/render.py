"""Render what one agent senses at one frame; write it as OPV2V does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from coopmap.config.synth import TownConfig
from coopmap.geometry import carla_from_pose, pose_from_carla
from coopmap.geometry.se3_numpy import relative_pose, rotate
from coopmap.report.files import write_npy
from coopmap.synthetic import sensors, writer
from coopmap.synthetic.cars import Car
from coopmap.synthetic.scenario import SPLITS, Drive, scenario_index
from coopmap.synthetic.view import View
from coopmap.synthetic.worlds import view_of, world_of

_NEIGHBOR_M = 70.0


@dataclass(frozen=True, eq=False)
class Sensed:
    """What one agent senses at one frame; cameras by OPV2V's numbers.

    Attributes:
        metadata: content of the YAML file.
        images: RGB.
        z_depth: along the optical axis, meters, 0 in the sky.
        sweep: LiDAR points, LiDAR frame, CARLA axes, in whole tenths of a millimeter; ``None`` if not asked for.
    """

    metadata: dict[str, Any]
    images: UInt8[np.ndarray, "4 h w 3"]
    z_depth: Float32[np.ndarray, "4 h w"]
    sweep: Float[np.ndarray, "n 3"] | None


def sense(cfg: TownConfig, split: str, drive: Drive, frame: int, agent: int, with_sweep: bool = True) -> Sensed:
    """Render what an agent senses at frame number ``frame`` of its drive.

    All poses are taken from the 6-vectors as written, so that the files agree with one another to the last digit.
    """
    index = scenario_index(drive.name)
    world = world_of(cfg, split, index)
    own = next(car for car in drive.cars[frame] if car.id == agent)
    others = [car for car in drive.cars[frame] if car.id != agent]
    view = view_of(world, others)
    mounting = sensors.mounting(cfg.rigs, (cfg.seed, 6, SPLITS.index(split), index, agent))
    lidar_pose = mounting.lidar_cords(own.pose_ue)
    cords = mounting.camera_cords(lidar_pose)
    world_from_lidar, world_from_camera = pose_from_carla(lidar_pose), pose_from_carla(cords)
    seeds = [(cfg.seed, 5, SPLITS.index(split), index, frame, agent, camera) for camera in range(len(cords))]
    taken = [_photograph(cfg, view, pose, seed) for pose, seed in zip(world_from_camera, seeds, strict=True)]
    metadata = writer.frame_metadata(
        lidar_pose=lidar_pose,
        cords=cords,
        extrinsics=relative_pose(world_from_camera, world_from_lidar),
        intrinsic=sensors.intrinsic(cfg.image_scale),
        car=own,
        noisy_pose=_gps(cfg, split, drive, frame, own),
        plan=drive.plans[frame][agent],
        neighbors=_neighbors(own, [*world.parked, *others]),
    )
    return Sensed(
        metadata,
        images=np.stack([rgb for _, rgb in taken]),
        z_depth=np.stack([z_depth for z_depth, _ in taken]),
        sweep=_sweep(cfg, view, world_from_lidar) if with_sweep else None,
    )


def render_agent(
    cfg: TownConfig, split: str, drive: Drive, frame: int, agent: int, folder: Path, depth_folder: Path | None
) -> None:
    """Write the files of an agent at frame number ``frame`` of its drive."""
    sensed, name = sense(cfg, split, drive, frame, agent), drive.frames[frame]
    for camera, (z_depth, rgb) in enumerate(zip(sensed.z_depth, sensed.images, strict=True)):
        writer.write_image(folder / f"{name}_camera{camera}.png", rgb, noisy=cfg.per_scenario)
        if depth_folder is not None:
            write_npy(z_depth, depth_folder / f"{name}_camera{camera}_depth.npy")
    assert sensed.sweep is not None
    writer.write_sweep(folder / f"{name}.pcd", sensed.sweep)
    writer.write_yaml(folder / f"{name}.yaml", sensed.metadata)


def _photograph(cfg: TownConfig, view: View, pose: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """z-depth (float32, 0 in the sky) and RGB (uint8) of a camera."""
    rays = sensors.camera_rays(cfg.image_scale)
    distance, color = view.look(
        pose[:3, 3], rotate(pose, rays.reshape(-1, 3)), pixel=1 / (sensors.FOCAL * cfg.image_scale)
    )
    z_depth = np.where(np.isfinite(distance), distance, 0).astype(np.float32)
    image = view.develop(color.reshape(rays.shape), seed)
    return z_depth.reshape(rays.shape[:2]), np.round(image * 255).astype(np.uint8)


def _sweep(cfg: TownConfig, view: View, pose: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Points of a LiDAR sweep, LiDAR frame, rounded as files are: who reads those has the same."""
    beams = sensors.lidar_rays(cfg.lidar)
    distance = view.distance(pose[:3, 3], rotate(pose, beams))
    reached = distance < cfg.lidar.range_m
    return np.round(beams[reached] * distance[reached, None], writer.SWEEP_DECIMALS)


def _gps(cfg: TownConfig, split: str, drive: Drive, frame: int, car: Car) -> Float[np.ndarray, "6"]:
    """Position and yaw with noise; GPS has neither roll nor pitch."""
    rng = np.random.default_rng([cfg.seed, 2, SPLITS.index(split), scenario_index(drive.name), frame, car.id])
    x, y, z, _, yaw, _ = carla_from_pose(car.pose_ue)
    dx, dy, turn = rng.standard_normal(3) * [cfg.gps_noise_m, cfg.gps_noise_m, cfg.gps_noise_deg]
    return np.array([x + dx, y + dy, z, 0.0, yaw + turn, 0.0])


def _neighbors(own: Car, others: Sequence[Car]) -> list[Car]:
    near = [car for car in others if np.linalg.norm(car.pose_ue[:3, 3] - own.pose_ue[:3, 3]) < _NEIGHBOR_M]
    return sorted(near, key=lambda car: car.id)
