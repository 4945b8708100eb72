"""What the cache holds of one agent in one frame, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from coopmap.data.opv2v import AgentMetadata, VehicleBoxes
from coopmap.data.views import Record
from coopmap.geometry.rig import Rig


@dataclass(frozen=True, eq=False)
class StoredRecord(Record):
    """A record whose views are ready but for augmentation.

    ``images`` are what the layout gives without gains (a panorama, or resized cameras), ``depth`` is empty.

    Attributes:
        content: further arrays, which the layout's maker of views (:mod:`coopmap.data.cache.views`) wrote.
    """

    content: Mapping[str, np.ndarray]


def pack(metadata: AgentMetadata, images: np.ndarray, content: Mapping[str, np.ndarray]) -> bytes:
    """All arrays, in the format of safetensors."""
    rig, vehicles = metadata.rig, metadata.vehicles
    arrays = {
        "pose": metadata.pose,
        "pose_prior": metadata.pose_prior,
        "intrinsics": rig.intrinsics,
        "agent_from_camera": rig.agent_from_camera,
        "image_size": np.array(rig.image_size),
        "scalars": np.array([rig.ground_height_m, metadata.speed, metadata.is_rsu]),
        "images": images,
    }
    if vehicles is not None:
        arrays |= {f"vehicles.{name}": values for name, values in vars(vehicles).items()}
    arrays |= {f"content.{name}": values for name, values in content.items()}
    return save({name: np.ascontiguousarray(values) for name, values in arrays.items()})


def unpack(data: bytes, path: Path, with_vehicles: bool) -> StoredRecord:
    """The inverse of :func:`pack`.

    Args:
        data: what it gave.
        path: the agent's YAML file.
        with_vehicles: whether the boxes of vehicles are asked for; there are none where their pixels are not known, as
            in older caches of frames of which one file lists no vehicles.
    """
    arrays = load(data)
    ground_height, speed, is_rsu = arrays["scalars"].tolist()
    height, width = arrays["image_size"].tolist()
    boxes = {name.removeprefix("vehicles."): values for name, values in arrays.items() if name.startswith("vehicles.")}
    content = {name.removeprefix("content."): values for name, values in arrays.items() if name.startswith("content.")}
    metadata = AgentMetadata(
        path=path,
        pose=arrays["pose"],
        pose_prior=arrays["pose_prior"],
        rig=Rig(arrays["intrinsics"], arrays["agent_from_camera"], (height, width), ground_height),
        speed=speed,
        is_rsu=bool(is_rsu),
        vehicles=VehicleBoxes(**boxes) if with_vehicles and boxes and "vehicle_at" in content else None,
    )
    return StoredRecord(metadata, arrays["images"], np.empty((0, 0, 0), np.float32), content)
