"""The YAML file of one agent in one frame, turned into poses and a rig in OpenCV axes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float, Int

from coopmap.data.opv2v.claims import check_calibration_is_used, check_slots, is_roadside_unit
from coopmap.data.opv2v.errors import CorruptFrameError, MetadataError, MissingFileError
from coopmap.geometry.carla import BASIS_CV_UE, pose_cv_from_ue, pose_from_carla
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig
from coopmap.geometry.se3_numpy import invert, relative_pose

# libyaml is some ten times faster; both loaders build plain values only, never objects.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_VEHICLES = re.compile(rb"^vehicles:.*\n?(?:[ #-].*\n?|\n)*", re.MULTILINE)

_KMH = 1 / 3.6
_EXTRINSIC_TOLERANCE = 0.01
"""Largest difference between recorded and computed ``extrinsic``, meters and (about) radians. Rounding of the recorded
poses accounts for 1e-4; a wrong angle convention exceeds this from half a degree of slope on."""


@dataclass(frozen=True, eq=False)
class VehicleBoxes:
    """Bounding boxes of the other vehicles near an agent; the box axes are right, down, forward.

    Attributes:
        ids: CARLA actor ids.
        pose: ``T_world_box``, the origin at the center of the box.
        half_extents: half the size along the box's axes, meters.
        speed: m/s.
    """

    ids: Int[np.ndarray, " n"]
    pose: Float[np.ndarray, "n 4 4"]
    half_extents: Float[np.ndarray, "n 3"]
    speed: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class AgentMetadata:
    """What a YAML file says about one agent in one frame; OpenCV axes, float64.

    Attributes:
        path: the YAML file.
        pose: ``T_world_agent``, the LiDAR's pose.
        pose_prior: the same as the car's own GPS and compass have it: noisy, roll and pitch unknown (zero).
        rig: cameras in slot order, image size and height above the ground.
        speed: m/s.
        is_rsu: a road-side unit rather than a vehicle.
        vehicles: the other vehicles around, or ``None`` if they were not asked for.
    """

    path: Path
    pose: Float[np.ndarray, "4 4"]
    pose_prior: Float[np.ndarray, "4 4"]
    rig: Rig
    speed: float
    is_rsu: bool
    vehicles: VehicleBoxes | None


def read_agent(path: Path | str, with_vehicles: bool = True) -> AgentMetadata:
    """Read one agent's metadata.

    Args:
        path: YAML file.
        with_vehicles: also read the boxes of the other vehicles, which make up most of the file and of the time.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is no YAML mapping, for instance because it was cut off.
        MetadataError: if a key is missing or malformed, or ``cords`` and ``extrinsic`` contradict each other.
    """
    path = Path(path)
    source = _Fields(path, _load(path, with_vehicles))
    if (is_rsu := is_roadside_unit(path, source.content)) and not with_vehicles:  # the ground is found by them
        source = _Fields(path, _load(path, with_vehicles=True))
    check_calibration_is_used(path, source.content)
    world_from_lidar = source.pose("lidar_pose")
    # The ego frame lies on the ground under the car; where the LiDAR is mounted in it is a fact of calibration.
    ego_from_lidar = relative_pose(source.pose("true_ego_pos"), world_from_lidar)
    vehicles = _vehicles(source) if with_vehicles else None
    ground_height = _ground_height_rsu(source, world_from_lidar) if is_rsu else float(ego_from_lidar[2, 3])
    if ground_height <= 0:
        raise MetadataError(
            path,
            f"'lidar_pose' lies {-ground_height:.2f} m below the ground that 'true_ego_pos' gives",
            "Copy or unpack the file again",
        )
    return AgentMetadata(
        path=path,
        pose=pose_cv_from_ue(world_from_lidar),
        pose_prior=pose_cv_from_ue(source.pose("predicted_ego_pos") @ ego_from_lidar),
        rig=_rig(source, world_from_lidar, ground_height),
        speed=float(source.array("ego_speed", ())) * _KMH,
        is_rsu=is_rsu,
        vehicles=vehicles,
    )


def _load(path: Path, with_vehicles: bool) -> Mapping[Any, Any]:
    try:
        text = path.read_bytes()
        if not with_vehicles:
            text = _VEHICLES.sub(b"", text)
        content = yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise MissingFileError(path, "no such file", "Unpack the missing part of the dataset") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = f" near line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        raise CorruptFrameError(path, f"not valid YAML{where}, perhaps cut off", "Copy or unpack it again") from error
    if not isinstance(content, Mapping):
        raise CorruptFrameError(path, "holds no YAML mapping, perhaps cut off or empty", "Copy or unpack it again")
    return content


class _Fields:
    """Checked access to the keys of a (nested) mapping; errors name them as ``outer.inner``."""

    def __init__(self, path: Path, content: Mapping[Any, Any], prefix: str = "") -> None:
        self.path = path
        self.content = content
        self.prefix = prefix

    def section(self, key: Any) -> _Fields:
        value = self.content.get(key)
        if not isinstance(value, Mapping):
            raise self.error(key, "is missing" if value is None else "is no mapping")
        return _Fields(self.path, value, f"{self.prefix}{key}.")

    def array(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        if key not in self.content:
            raise self.error(key, "is missing")
        try:
            value = np.asarray(self.content[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise self.error(key, f"must hold {shape or 'one'} numbers, not {self.content[key]!r:.60}") from None
        if value.shape != shape or not np.isfinite(value).all():
            raise self.error(key, f"must hold finite numbers of shape {shape}, got {self.content[key]!r:.60}")
        return value

    def pose(self, key: str) -> np.ndarray:
        """``T_world_key`` in CARLA axes."""
        return pose_from_carla(self.array(key, (6,)))

    def error(self, key: Any, problem: str) -> MetadataError:
        return MetadataError(
            self.path, f"key '{self.prefix}{key}' {problem}", "Compare docs/data.md, or copy the file again"
        )


def _rig(source: _Fields, world_from_lidar: np.ndarray, ground_height: float) -> Rig:
    """Calibration in slot order from ``cords``, checked against ``extrinsic`` (``T_camera_lidar``, CARLA axes)."""
    cameras = [source.section(f"camera{number}") for number in OPV2V_CAMERA_OF_SLOT]
    lidar_from_camera = relative_pose(world_from_lidar, np.stack([camera.pose("cords") for camera in cameras]))
    recorded = np.stack([camera.array("extrinsic", (4, 4)) for camera in cameras])
    gap = np.abs(invert(lidar_from_camera) - recorded).max(axis=(1, 2))
    if gap.max() > _EXTRINSIC_TOLERANCE:
        raise MetadataError(
            source.path,
            f"camera{OPV2V_CAMERA_OF_SLOT[int(gap.argmax())]}: 'extrinsic' is {gap.max():.3f} off what 'cords' and "
            "'lidar_pose' give",
            "Expected T_camera_lidar in CARLA axes; cords in degrees as (x, y, z, roll, yaw, pitch)",
        )
    intrinsics = np.stack([camera.array("intrinsic", (3, 3)) for camera in cameras])
    sizes = np.rint(2 * intrinsics[:, [1, 0], 2]).astype(int)  # CARLA's principal point is the image center
    if (sizes != sizes[0]).any():
        raise MetadataError(source.path, f"the cameras differ in image size: {sizes.tolist()}", "One size is supported")
    if (intrinsics[:, [0, 1], [0, 1]] <= 0).any() or (intrinsics[:, 0, 1] != 0).any():
        raise MetadataError(source.path, "an 'intrinsic' is no pinhole matrix without skew", "Expected fx, fy > 0")
    rig = Rig(
        intrinsics=intrinsics,
        agent_from_camera=pose_cv_from_ue(lidar_from_camera),
        image_size=(int(sizes[0, 0]), int(sizes[0, 1])),
        ground_height_m=ground_height,
    )
    check_slots(source.path, rig)
    return rig


def _vehicles(source: _Fields) -> VehicleBoxes:
    boxes = source.section("vehicles")
    fields = [boxes.section(actor) for actor in boxes.content]
    if wrong := [actor for actor in boxes.content if not isinstance(actor, int)]:
        raise boxes.error(wrong[0], "is no actor number")

    def column(key: str, *shape: int) -> np.ndarray:
        return np.array([field.array(key, shape) for field in fields]).reshape(len(fields), *shape)

    location, angle, center = column("location", 3), column("angle", 3), column("center", 3)
    world_from_vehicle = pose_from_carla(np.concatenate([location, angle], axis=1))
    vehicle_from_box = np.tile(np.eye(4), (len(fields), 1, 1))
    vehicle_from_box[:, :3, 3] = center
    return VehicleBoxes(
        ids=np.array(list(boxes.content), dtype=np.int64),
        pose=pose_cv_from_ue(world_from_vehicle @ vehicle_from_box),
        half_extents=column("extent", 3) @ np.abs(BASIS_CV_UE[:3, :3]).T,
        speed=column("speed") * _KMH,
    )


def _ground_height_rsu(source: _Fields, world_from_lidar: np.ndarray) -> float:
    """Height of a road-side unit above the vehicles around: its own ``true_ego_pos`` is on the pole."""
    boxes = source.section("vehicles")
    ground = [boxes.section(actor).array("location", (3,))[2] for actor in boxes.content]
    if not ground:
        raise MetadataError(source.path, "a road-side unit with no vehicle around: ground unknown", "Remove it")
    return float(world_from_lidar[2, 3] - np.median(ground))
