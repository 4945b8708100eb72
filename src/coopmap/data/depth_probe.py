"""Whether depth is depth in meters: told from a few frames, before anything is learned from them.

Numbers of dense depth are compared with the LiDAR points that hit the same pixels, and where there are no sweeps with
the road under the cameras, whose height calibration knows. Sweeps that are the only depth are looked at in
:mod:`coopmap.data.sweep_probe`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from coopmap.data.depth_meaning import UNIT_WITHIN, Meaning, Surfaces, best_meaning, share_in_meters
from coopmap.data.opv2v import DatasetLayoutError, DepthSource, FrameError, SplitIndex, read_agent
from coopmap.data.opv2v.depth import DenseDepth, z_to_range
from coopmap.data.opv2v.gray_depth import GRAY_REMEDY, GrayDepthError
from coopmap.data.opv2v.images import decode_png
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.suspicion import Suspicion
from coopmap.data.sweep_probe import suspect_sweeps
from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig
from coopmap.geometry.se3_numpy import rotate
from coopmap.geometry.targets import SeenPoints

log = logging.getLogger(__name__)

FRAMES = 3
LIDAR_WITHIN, ROAD_WITHIN = 0.05, 0.15
"""Relative difference up to which depth and a LiDAR point, or the road of a car that may stand on a slope, agree."""
ROAD_RANGE_M = (2.0, 10.0)
"""Farther on, roads bend and other cars stand in the way."""
ROAD_COLUMNS = 200
TRUSTED_SHARE = 0.5
"""Surfaces that have to agree with a meaning for it to be believed, ..."""
CLEARLY_MORE = 0.25
"""... so many more than agree with what the files are taken for."""
LEAST_AGREEING = 0.1
LEAST_KNOWN = 0.01
"""Share of pixels with known depth below which there is next to nothing to learn from."""


@dataclass(frozen=True, eq=False)
class _Look:
    """The depth files of one agent in one frame.

    Attributes:
        path: of the front camera's.
        stored: what the files hold.
        rig: of the agent.
        seen: LiDAR points in the cameras, if there is a sweep.
        gray: the error that the files are refused with for being gray, if they are.
    """

    path: Path
    stored: Float32[np.ndarray, "k h w"]
    rig: Rig
    seen: SeenPoints | None
    gray: GrayDepthError | None


def check_depth(index: SplitIndex, source: DepthSource, refuse: bool = True) -> None:
    """Warn of depth files or sweeps that hardly hold meters.

    Raises:
        DatasetLayoutError: they certainly hold something else, unless that is only warned of; the message says what.
    """
    suspicion = suspect_depth(index, source)
    if suspicion is None:
        return
    if suspicion.is_certain and refuse:
        raise DatasetLayoutError(suspicion.path, suspicion.reason, suspicion.remedy)
    log.warning("%s: %s. %s", suspicion.path, suspicion.reason, suspicion.remedy)


def suspect_depth(index: SplitIndex, source: DepthSource) -> Suspicion | None:
    """What speaks against a few frames of a split; ``None`` if nothing does, or none of them can be read."""
    if isinstance(source, DenseDepth):
        return _suspect_dense(index, source)
    return suspect_sweeps(index)


def _suspect_dense(index: SplitIndex, source: DenseDepth) -> Suspicion | None:
    looks = list(_looks(index, source))
    if not looks:
        return None
    measured = [seen_surfaces(look.stored, look.seen, look.rig) for look in looks if look.seen is not None]
    by_lidar = bool(measured)
    parts = measured or [_road_surfaces(look.stored, look.rig) for look in looks]
    suspicion = _unlike_meters(looks, Surfaces.joined(parts), source, by_lidar)
    return suspicion or _unknown(looks, source)


def seen_surfaces(stored: Float32[np.ndarray, "k h w"], seen: SeenPoints, rig: Rig) -> Surfaces:
    """Pixels that LiDAR points hit."""
    flat = stored.reshape(len(stored), -1)[seen.camera, seen.pixel]
    lengths = z_to_range(rig).reshape(len(stored), -1)[seen.camera, seen.pixel]
    return _known(flat, seen.ranges, lengths, LIDAR_WITHIN)


def _road_surfaces(stored: Float32[np.ndarray, "k h w"], rig: Rig) -> Surfaces:
    """Pixels that show the road near the car, if nothing stands on it and it is even."""
    height, width = rig.image_size
    step = max(1, width // ROAD_COLUMNS)
    some = (slice(None, None, step), slice(None, None, step))
    parts = []
    for slot, (matrix, pose) in enumerate(zip(rig.intrinsics, rig.agent_from_camera, strict=True)):
        down = rotate(pose, camera_rays(PinholeCamera(matrix, height, width))[some])[..., 1]
        with np.errstate(divide="ignore"):
            ranges = (rig.ground_height_m - pose[1, 3]) / np.where(down > 0, down, 0)
        near = (ranges >= ROAD_RANGE_M[0]) & (ranges <= ROAD_RANGE_M[1])
        lengths = z_to_range(rig)[slot][some]
        parts.append(_known(stored[slot][some][near], ranges[near], lengths[near], ROAD_WITHIN))
    return Surfaces.joined(parts)


def _known(stored: np.ndarray, ranges: np.ndarray, lengths: np.ndarray, within: float) -> Surfaces:
    known = np.isfinite(stored) & (stored > 0)
    stored, ranges, lengths = (values[known].astype(np.float64) for values in (stored, ranges, lengths))
    return Surfaces(stored, ranges, lengths, within)


def _looks(index: SplitIndex, source: DenseDepth) -> Iterator[_Look]:
    """A few frames, as far as they can be read: what cannot is reported when it is needed."""
    for number in np.unique(np.linspace(0, len(index) - 1, FRAMES).round().astype(int)):
        ref = index.frame(int(number))
        agent, gray = ref.agents[0], None
        path = source.first_path(ref, agent)
        try:
            rig = read_agent(index.yaml_path(ref, agent), with_vehicles=False).rig
            try:
                images = [source.stored(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]
            except GrayDepthError as error:
                gray = error
                images = [decode_png(each, cv2.IMREAD_GRAYSCALE) for each in source.paths(ref, agent)]
        except FrameError:
            continue
        if any(image.shape != rig.image_size for image in images):
            continue
        yield _Look(path, np.stack(images).astype(np.float32), rig, _seen(index.lidar_path(ref, agent), rig), gray)


def _seen(path: Path, rig: Rig) -> SeenPoints | None:
    try:
        sweep = read_sweep(path)
    except FrameError:
        return None
    return cull_hidden(see(drop_own_body(sweep), rig), rig.intrinsics[:, 0, 0], sample_spacing(sweep))


def _unlike_meters(looks: list[_Look], surfaces: Surfaces, source: DenseDepth, by_lidar: bool) -> Suspicion | None:
    """Whether another meaning explains the numbers better."""
    best = best_meaning(surfaces, source.kind)
    gray = next((look.gray for look in looks if look.gray is not None), None)
    if gray is not None:
        holds = f"; by {_witness(by_lidar)} it holds {best.words}" if best and best.share >= TRUSTED_SHARE else ""
        return Suspicion(gray.path, gray.reason + holds, gray.remedy, is_certain=True)
    if best is None:
        return None
    as_taken, path = share_in_meters(surfaces, source.kind), looks[0].path
    share = f"{best.share:.0%} of {len(surfaces.stored)} pixels against {as_taken:.0%}"
    if source.is_carla_png:
        turned = share_in_meters(_swapped(surfaces), source.kind)
        if turned >= TRUSTED_SHARE and turned > as_taken + CLEARLY_MORE:
            reason = f"red and blue are swapped: then {turned:.0%} of the pixels agree with {_witness(by_lidar)}, as "
            reason += f"stored {as_taken:.0%}; in CARLA's encoding red is the lowest byte"
            return Suspicion(path, reason, "Write the files with red and blue exchanged", is_certain=True)
    if best.share >= TRUSTED_SHARE and best.share > as_taken + CLEARLY_MORE and _differs(best, source.kind, by_lidar):
        reason = f"by {_witness(by_lidar)} the files hold {best.words} ({share}); expected meters, {_axis(source.kind)}"
        return Suspicion(path, reason, _remedy(best, source), is_certain=True)
    if as_taken < LEAST_AGREEING:
        reason = f"only {as_taken:.0%} of {len(surfaces.stored)} pixels agree with {_witness(by_lidar)} when taken for "
        reason += f"meters {_axis(source.kind)}"
        return Suspicion(path, reason, "Look at some with coopmap preview, and compare all with coopmap check", False)
    return None


def _differs(best: Meaning, kind: str, by_lidar: bool) -> bool:
    """Whether that is something else than meters; the road near a car tells units, and hardly z from range."""
    if best.kind not in ("z", "ray"):
        return True
    limit = UNIT_WITHIN if by_lidar else 0.5
    return abs(np.log(best.factor)) > np.log(1 + limit) or (by_lidar and best.kind != kind)


def _swapped(surfaces: Surfaces) -> Surfaces:
    """What PNG files would hold with red and blue exchanged."""
    largest = 256**3 - 1
    code = np.rint(surfaces.stored / 1000 * largest).astype(np.int64)
    turned = (code % 256) * 65536 + (code // 256 % 256) * 256 + code // 65536
    meters = np.maximum(turned, 1) * (1000 / largest)
    return Surfaces(meters, surfaces.ranges, surfaces.lengths, surfaces.within)


def _unknown(looks: list[_Look], source: DenseDepth) -> Suspicion | None:
    """Whether next to no depth is known."""
    known = np.mean([(source.ranges(look.stored.copy(), look.rig) > 0).mean() for look in looks])
    if known >= LEAST_KNOWN:
        return None
    stored = np.concatenate([look.stored[np.isfinite(look.stored) & (look.stored > 0)] for look in looks])
    middle = f"their median is {np.median(stored):.4g}" if len(stored) else "no number is above 0"
    reason = (
        f"{known:.1%} of the pixels have a depth between 0 and data.depth.max_m={source.max_depth_m:g}: {middle}; "
        "expected meters"
    )
    return Suspicion(looks[0].path, reason, "Write meters, or correct data.depth.*", is_certain=True)


def _remedy(best: Meaning, source: DenseDepth) -> str:
    in_meters = best.kind in ("z", "ray") and best.unit == "meters"
    if in_meters and not source.is_png:
        return f"Set data.depth.kind={best.kind}"
    return "Write meters (.npy), or CARLA's 24-bit PNG" + (f"; {GRAY_REMEDY}" if source.is_png else "")


def _witness(by_lidar: bool) -> str:
    return "the LiDAR sweeps beside them" if by_lidar else "the road under the cameras"


def _axis(kind: str) -> str:
    return "along the optical axis (data.depth.kind=z)" if kind == "z" else "along the ray (data.depth.kind=ray)"
