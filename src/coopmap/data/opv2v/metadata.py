"""The YAML file of one agent in one frame, turned into poses and a rig in OpenCV axes."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coopmap.data.opv2v.claims import check_calibration_is_used, check_slots, is_roadside_unit
from coopmap.data.opv2v.errors import CorruptFrameError, ExtrinsicError, MetadataError
from coopmap.data.opv2v.files import guarded
from coopmap.data.opv2v.images import size_of_cameras
from coopmap.data.opv2v.yaml_file import DUMP_AGAIN, UnknownTag, load_metadata
from coopmap.geometry.carla import BASIS_CV_UE, carla_from_pose, pose_cv_from_ue, pose_from_carla
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig
from coopmap.geometry.se3_numpy import invert, relative_pose

_KMH = 1 / 3.6
EXTRINSIC_TOLERANCE = 0.01
"""Largest difference between recorded and computed ``extrinsic``, meters and (about) radians. Rounding of the recorded
poses accounts for 1e-4; a wrong angle convention exceeds this from half a degree of slope on."""
_RIGID_TOLERANCE = 1e-3
LARGEST_POSE = np.array([1e8] * 3 + [1e4] * 3)
"""Meters and degrees that no map reaches: squares of larger numbers lose the car in rounding."""
_FOCAL_FACTOR = 100


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
        pose_prior: the same as the car's own GPS and compass have it: noisy, roll and pitch unknown (zero); NaN if the
            file does not tell.
        rig: cameras in slot order, image size and height above the ground.
        speed: m/s; NaN if the file does not tell.
        is_rsu: a road-side unit rather than a vehicle.
        vehicles: the other vehicles around, or ``None`` if they were not asked for or the file does not tell.
    """

    path: Path
    pose: Float[np.ndarray, "4 4"]
    pose_prior: Float[np.ndarray, "4 4"]
    rig: Rig
    speed: float
    is_rsu: bool
    vehicles: VehicleBoxes | None


def read_agent(path: Path | str, with_vehicles: bool = True, content: Mapping[Any, Any] | None = None) -> AgentMetadata:
    """Read one agent's metadata.

    Poses are ``(x, y, z, roll, yaw, pitch)``, meters and degrees, or 4x4 matrices ``T_world_*``, in CARLA axes. The
    size of the images is told by the images beside the file; where there are none, the principal point is their center.

    Args:
        path: YAML file.
        with_vehicles: also read the boxes of the other vehicles, which make up most of the file and of the time.
        content: the whole of the file, if it was loaded already.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if it is no YAML mapping, for instance because it was cut off.
        MetadataError: if a key is missing or malformed, or ``cords`` and ``extrinsic`` contradict each other.
    """
    return _read_agent(Path(path), with_vehicles, content)


def read_cords(path: Path, key: str, content: Mapping[Any, Any] | None = None) -> Float[np.ndarray, " 6"]:
    """A pose at the top level as CARLA's ``(x, y, z, roll, yaw, pitch)``, in whatever form the file has it.

    Args:
        path: YAML file.
        key: of the pose.
        content: of the file, if it was loaded already.

    Raises:
        FrameError: see :func:`read_agent`.
    """
    content = load_metadata(path, with_vehicles=False) if content is None else content
    return carla_from_pose(_Fields(path, content).pose(key))


@guarded("metadata file")
def _read_agent(path: Path, with_vehicles: bool, content: Mapping[Any, Any] | None) -> AgentMetadata:
    source = _Fields(path, load_metadata(path, with_vehicles) if content is None else content)
    if (is_rsu := is_roadside_unit(path, source.content)) and not with_vehicles:  # the ground is found by them
        source = _Fields(path, load_metadata(path, with_vehicles=True))
    check_calibration_is_used(path, source.content)
    world_from_lidar = source.pose("lidar_pose")
    # The ego frame lies on the ground under the car; where the LiDAR is mounted in it is a fact of calibration.
    ego_from_lidar = relative_pose(source.pose("true_ego_pos"), world_from_lidar)
    vehicles = _vehicles(source) if with_vehicles and source.has("vehicles") else None
    ground_height = _ground_height_rsu(source, world_from_lidar) if is_rsu else float(ego_from_lidar[2, 3])
    if ground_height <= 0:
        raise MetadataError(
            path,
            f"'lidar_pose' lies {-ground_height:.2f} m below the ground that 'true_ego_pos' gives",
            "Expected the pose of the LiDAR, and that of the car on the ground under it, in one frame",
        )
    return AgentMetadata(
        path=path,
        pose=pose_cv_from_ue(world_from_lidar),
        pose_prior=pose_cv_from_ue(source.pose("predicted_ego_pos") @ ego_from_lidar)
        if source.has("predicted_ego_pos")
        else np.full((4, 4), np.nan),
        rig=_rig(source, world_from_lidar, ground_height),
        speed=float(source.array("ego_speed", ())) * _KMH if source.has("ego_speed") else math.nan,
        is_rsu=is_rsu,
        vehicles=vehicles,
    )


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

    def has(self, key: Any) -> bool:
        return self.content.get(key) is not None

    def array(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        value = self._numbers(key, f"{shape or 'one'} numbers")
        if value.shape != shape or not np.isfinite(value).all():
            raise self.error(key, f"must hold finite numbers of shape {shape}, got {_shown(self.content[key])}")
        return value

    def pose(self, key: str) -> np.ndarray:
        """``T_world_key`` in CARLA axes, from CARLA's six numbers or a matrix."""
        value = self._numbers(key, "(x, y, z, roll, yaw, pitch)")
        if value.shape == (4, 4):
            return self._checked_matrix(key, value)
        if value.shape != (6,) or not np.isfinite(value).all():
            raise self.error(
                key, f"must hold finite numbers of shape (6,) or a 4x4 matrix, got {_shown(self.content[key])}"
            )
        if (np.abs(value) > LARGEST_POSE).any():
            raise self.error(key, f"must hold (x, y, z) in meters and three angles in degrees, got {value.tolist()}")
        return pose_from_carla(value)

    def _checked_matrix(self, key: str, value: np.ndarray) -> np.ndarray:
        rotation = value[:3, :3]
        is_rigid = (
            np.isfinite(value).all()
            and (value[3] == (0, 0, 0, 1)).all()
            and np.abs(value[:3, 3]).max() <= LARGEST_POSE[0]
            and np.abs(rotation).max() < 2
            and np.abs(rotation @ rotation.T - np.eye(3)).max() < _RIGID_TOLERANCE
            and np.linalg.det(rotation) > 0
        )
        if not is_rigid:
            raise self.error(key, "is no rigid motion: expected T_world in CARLA axes with the last row 0, 0, 0, 1")
        return value

    def _numbers(self, key: Any, expected: str) -> np.ndarray:
        if key not in self.content:
            raise self.error(key, "is missing")
        raw = self.content[key]
        try:
            value = np.array(raw)
            if value.dtype == np.float64:
                return value
            if value.dtype.kind == "U" and str(raw).isascii():  # 1e-05 is no number in YAML, but is one in JSON
                value = value.astype(np.float64)
            if value.dtype.kind in "iuf":
                return value.astype(np.float64, copy=False)
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass
        if tag := _tag_in(raw):
            raise CorruptFrameError(self.path, f"key '{self.prefix}{key}' holds a value of the tag {tag}", DUMP_AGAIN)
        raise self.error(key, f"must hold {expected}, not {_shown(raw)}")

    def error(self, key: Any, problem: str) -> MetadataError:
        return MetadataError(self.path, f"key '{self.prefix}{key}' {problem}", "Compare docs/data.md")


def _tag_in(value: Any, depth: int = 4) -> str | None:
    """The first unknown tag of a value or the lists in it."""
    if isinstance(value, UnknownTag):
        return value.tag
    if isinstance(value, list | tuple) and depth:
        return next((tag for item in value[:100] if (tag := _tag_in(item, depth - 1))), None)
    return None


def _shown(value: Any) -> str:
    """A value for a message, however large it is."""
    try:
        return reprlib.repr(value)[:100]
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} too large to show"


def _rig(source: _Fields, world_from_lidar: np.ndarray, ground_height: float) -> Rig:
    """Calibration in slot order from ``cords``, checked against ``extrinsic`` (``T_camera_lidar``, CARLA axes)."""
    cameras = [source.section(f"camera{number}") for number in OPV2V_CAMERA_OF_SLOT]
    lidar_from_camera = relative_pose(world_from_lidar, np.stack([camera.pose("cords") for camera in cameras]))
    recorded = np.stack([camera.array("extrinsic", (4, 4)) for camera in cameras])
    gap = np.abs(invert(lidar_from_camera) - recorded).max(axis=(1, 2))
    if gap.max() > EXTRINSIC_TOLERANCE:
        raise ExtrinsicError(
            source.path,
            f"camera{OPV2V_CAMERA_OF_SLOT[int(gap.argmax())]}: 'extrinsic' is {gap.max():.3f} off what 'cords' and "
            "'lidar_pose' give",
            "Expected T_camera_lidar in CARLA axes; cords in degrees as (x, y, z, roll, yaw, pitch)",
        )
    intrinsics = np.stack([camera.array("intrinsic", (3, 3)) for camera in cameras])
    focal, skew, center = intrinsics[:, [0, 1], [0, 1]], intrinsics[:, 0, 1], intrinsics[:, [1, 0], 2]
    if (focal <= 0).any() or (skew != 0).any() or (intrinsics[:, 2] != (0, 0, 1)).any():
        raise MetadataError(source.path, "an 'intrinsic' is no pinhole matrix without skew", "Expected fx, fy > 0")
    size = size_of_cameras(source.path, center)
    if focal.min() < min(size) / _FOCAL_FACTOR or focal.max() > max(size) * _FOCAL_FACTOR:
        raise MetadataError(
            source.path,
            f"an 'intrinsic' has the focal lengths {focal.tolist()} px",
            f"Images have {size} (height, width)",
        )
    rig = Rig(
        intrinsics=intrinsics,
        agent_from_camera=pose_cv_from_ue(lidar_from_camera),
        image_size=size,
        ground_height_m=ground_height,
    )
    check_slots(source.path, rig)
    return rig


def _vehicles(source: _Fields) -> VehicleBoxes:
    boxes = source.section("vehicles")
    fields = [boxes.section(actor) for actor in boxes.content]
    ids = [_actor_number(actor) for actor in boxes.content]
    if None in ids:
        raise boxes.error(list(boxes.content)[ids.index(None)], "is no actor number")

    def column(key: str, *shape: int) -> np.ndarray:
        return np.array([field.array(key, shape) for field in fields]).reshape(len(fields), *shape)

    location, angle, center = column("location", 3), column("angle", 3), column("center", 3)
    world_from_vehicle = pose_from_carla(np.concatenate([location, angle], axis=1))
    vehicle_from_box = np.tile(np.eye(4), (len(fields), 1, 1))
    vehicle_from_box[:, :3, 3] = center
    return VehicleBoxes(
        ids=np.array(ids, dtype=np.int64),
        pose=pose_cv_from_ue(world_from_vehicle @ vehicle_from_box),
        half_extents=column("extent", 3) @ np.abs(BASIS_CV_UE[:3, :3]).T,
        speed=column("speed") * _KMH,
    )


def _actor_number(actor: Any) -> int | None:
    """JSON has numbers as text."""
    if isinstance(actor, str) and actor.isascii() and actor.isdecimal():
        actor = int(actor)
    return actor if isinstance(actor, int) and abs(actor) < 1 << 62 else None


def _ground_height_rsu(source: _Fields, world_from_lidar: np.ndarray) -> float:
    """Height of a road-side unit above the vehicles around: its own ``true_ego_pos`` is on the pole."""
    boxes = source.section("vehicles")
    ground = [boxes.section(actor).array("location", (3,))[2] for actor in boxes.content]
    if not ground:
        raise MetadataError(source.path, "a road-side unit with no vehicle around: ground unknown", "Remove it")
    return float(world_from_lidar[2, 3] - np.median(ground))
