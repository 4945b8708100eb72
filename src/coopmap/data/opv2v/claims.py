"""What a YAML file says about itself, checked against its name and its content."""

from __future__ import annotations

import logging
import multiprocessing
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from coopmap.data.opv2v.errors import MetadataError, SwappedCamerasError
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, SLOTS, Rig

log = logging.getLogger(__name__)

_AGENT = re.compile(r"-?[0-9]+")
_CAMERA = re.compile(r"camera[0-9]+")
_CAMERA_KEYS = frozenset(("cords", "extrinsic", "intrinsic"))
_DISTORTION = re.compile(r"distort|^dist(_?coeffs?)?$|^[kp][1-6]$", re.IGNORECASE)


def is_roadside_unit(path: Path, content: Mapping[Any, Any]) -> bool:
    """The key ``RSU`` of V2XSet, and the sign of the agent's id, which is the name of its folder: they have to agree.

    A car that is taken for a road-side unit would have the ground under the cars around, and no body of its own.

    Raises:
        MetadataError: the key is no boolean, or says other than the folder.
    """
    agent, claim = path.parent.name, content.get("RSU")
    if claim is not None and not isinstance(claim, bool):
        raise MetadataError(path, f"key 'RSU' is {claim!r:.40}", "Expected true or false, without quotes")
    if not _AGENT.fullmatch(agent):
        return bool(claim)
    by_folder = agent.startswith("-")
    if claim is not None and claim != by_folder:
        kinds = {True: "a road-side unit", False: "a vehicle"}
        raise MetadataError(
            path,
            f"key 'RSU' is {str(claim).lower()}, but the id of the agent, {agent}, is that of {kinds[by_folder]}",
            "Road-side units have negative ids: correct the key or the name of the folder",
        )
    return by_folder


def check_slots(path: Path, rig: Rig) -> None:
    """Cameras have to look where their numbers say.

    Images and depth are taken by number: with other numbers, the left camera would look right without anybody's notice.

    Raises:
        SwappedCamerasError: a camera looks where another should.
    """
    if misplaced := rig.misplaced_slots():
        looks = ", ".join(
            f"camera{camera} {azimuth:+.0f} deg ({slot} expected)"
            for slot, camera, azimuth in zip(SLOTS, OPV2V_CAMERA_OF_SLOT, rig.azimuths_deg, strict=True)
            if slot in misplaced
        )
        raise SwappedCamerasError(
            path,
            f"by calibration cameras look elsewhere than their numbers say, to the right of forward: {looks}",
            "Number keys and files so that camera0 looks to the front, 1 to the right, 2 to the left, 3 to the rear",
        )


def check_calibration_is_used(path: Path, content: Mapping[Any, Any]) -> None:
    """Calibration that is not used: lens distortion is refused, further cameras and keys are warned of, once.

    Raises:
        MetadataError: a camera in use has distortion.
    """
    used = [f"camera{number}" for number in OPV2V_CAMERA_OF_SLOT]
    further = {key for key in content if isinstance(key, str) and _CAMERA.fullmatch(key) and key not in used}
    for camera in used:
        section = content.get(camera)
        if not isinstance(section, Mapping):
            continue
        for key in section:
            if not isinstance(key, str) or key in _CAMERA_KEYS:
                continue
            if _DISTORTION.search(key):
                _check_no_distortion(path, f"{camera}.{key}", section[key])
            else:
                further.add(f"camera*.{key}")
    if further and multiprocessing.parent_process() is None:  # loaders would say it once each
        _warn(path, tuple(sorted(further)))


def _check_no_distortion(path: Path, key: str, value: Any) -> None:
    if isinstance(value, str):
        is_none = value.strip().lower() in ("", "none")
    else:
        numbers = [float(number) for number in np.ravel(np.array(value, dtype=object)) if _is_number(number)]
        is_none = value is None or not any(numbers)
    if not is_none:
        raise MetadataError(
            path, f"key '{key}' tells of lens distortion ({value!r:.60}); pinhole images are expected",
            "Undistort the images and remove the key",
        )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@lru_cache(maxsize=64)
def _warned(keys: Collection[str]) -> bool:
    return True


def _warn(path: Path, keys: tuple[str, ...]) -> None:
    before = _warned.cache_info().misses
    _warned(keys)
    if _warned.cache_info().misses > before:
        log.warning(
            "%s: calibration that is not used: %s. An agent's views are made of camera0 to camera3, pinhole cameras",
            path,
            ", ".join(keys),
        )
