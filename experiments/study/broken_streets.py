"""A copy of rendered streets with one of the defects that are in the data rather than in a configuration.

    python experiments/study/broken_streets.py DEFECT ROOT OUT

DEFECT is one of:

- ``pitch_sign``, ``roll_sign``: the sign of all pitch or roll angles is turned, as by a converter that takes CARLA's
  axes for right-handed ones. It shows on slopes.
- ``few_points``: 2.4 % of the pixels of the depth maps stay known, what asking each pixel of a panorama for the nearest
  pixel of a camera left of a sweep.
- ``bilinear_depth``: such sparse depth is resampled bilinearly, with unknown depth as 0.

Dense depth is taken from ``ROOT_depth`` to ``OUT_depth``; files that do not change are hard links. Train on the copy
and evaluate on ROOT, whose poses are true. The other defects are ``experiment=defects/...``.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from join_streets import beside

from coopmap.geometry.carla import pose_from_carla
from coopmap.geometry.se3_numpy import invert

DEFECTS = ("pitch_sign", "roll_sign", "few_points", "bilinear_depth")
KNOWN_SHARE = 0.024
ANGLE = {"roll_sign": 3, "pitch_sign": 5}
"""Place in ``[x, y, z, roll, yaw, pitch]``."""

POSES = {"lidar_pose", "true_ego_pos", "predicted_ego_pos", "cords"}


def turned(value: Any, place: int) -> Any:
    """Metadata with one angle of all poses of agents and cameras turned."""
    if not isinstance(value, dict):
        return value
    broken = {key: turned(item, place) for key, item in value.items()}
    for key in POSES & broken.keys():
        broken[key] = [-number if i == place else number for i, number in enumerate(broken[key])]
    return broken


def with_extrinsics(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same, with the extrinsics that its poses give, as a converter would write them."""
    world_from_lidar = pose_from_carla(metadata["lidar_pose"])
    for key in (key for key in metadata if key.startswith("camera")):
        extrinsic = invert(pose_from_carla(metadata[key]["cords"])) @ world_from_lidar
        metadata[key]["extrinsic"] = extrinsic.tolist()
    return metadata


def thinned(depth: Float[np.ndarray, "h w"], name: str) -> Float[np.ndarray, "h w"]:
    """Depth of which a few pixels stay known, others for each file."""
    known = np.random.default_rng(zlib.crc32(name.encode())).random(depth.shape) < KNOWN_SHARE
    return np.where(known, depth, 0)


def blended(depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Depth halfway between the pixels, unknown ones counted as 0."""
    below = np.pad(depth, ((0, 1), (0, 1)), mode="edge")
    return (below[:-1, :-1] + below[1:, :-1] + below[:-1, 1:] + below[1:, 1:]) / 4


def break_metadata(source: Path, target: Path, defect: str) -> None:
    """Write the YAML file of an agent with an angle turned."""
    metadata = yaml.load(source.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    broken = with_extrinsics(turned(metadata, ANGLE[defect]))
    target.write_text(yaml.dump(broken, Dumper=yaml.CSafeDumper, default_flow_style=None, width=4096), encoding="utf-8")


def break_depth(source: Path, target: Path, defect: str) -> None:
    """Write a sparse depth map."""
    depth = thinned(np.load(source), f"{source.parent.name}/{source.name}")
    np.save(target, (blended(depth) if defect == "bilinear_depth" else depth).astype(np.float32))


def copy(source: Path, target: Path, defect: str) -> None:
    """Copy a file, broken if the defect is in files of its kind."""
    if defect in ANGLE and source.suffix == ".yaml" and source.stem.isdigit():
        break_metadata(source, target, defect)
    elif defect not in ANGLE and source.suffix == ".npy":
        break_depth(source, target, defect)
    else:
        os.link(source, target)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in DEFECTS:
        raise SystemExit(__doc__)
    kind, root, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for there, here in ((root, out), (beside(root), beside(out))):
        shutil.copytree(there, here, copy_function=lambda one, other: copy(Path(one), Path(other), kind))
