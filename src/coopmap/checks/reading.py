"""Reads the files of one agent in one frame, and says what is wrong with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from coopmap.checks.axes import FLIPS, flipped, mounting
from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey, Problem
from coopmap.checks.signs import angle_of
from coopmap.data.opv2v import (
    AgentMetadata,
    DataError,
    DepthSource,
    ExtrinsicError,
    FrameError,
    FrameRef,
    MetadataError,
    MissingFileError,
    SplitIndex,
    SwappedCamerasError,
    read_agent,
    read_image,
)
from coopmap.data.opv2v.depth import DenseDepth
from coopmap.data.opv2v.images import image_file
from coopmap.data.opv2v.metadata import EXTRINSIC_TOLERANCE, read_cords
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.opv2v.yaml_file import load_metadata
from coopmap.geometry.carla import pose_ue_from_cv
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.geometry.se3_numpy import invert, relative_pose

CAMERAS = tuple(f"camera{number}" for number in OPV2V_CAMERA_OF_SLOT)
"""Their keys, slot order."""


@dataclass(eq=False)
class AgentFiles:
    """Decoded files of an agent, slot order; ``None`` where one of them is missing or damaged.

    Attributes:
        metadata: of the YAML file.
        images: of all cameras.
        stored_depth: of all cameras, as in the files.
        sweep: agent frame.
    """

    metadata: AgentMetadata | None = None
    images: UInt8[np.ndarray, "k h w 3"] | None = None
    stored_depth: Float32[np.ndarray, "k h w"] | None = None
    sweep: Float32[np.ndarray, "n 3"] | None = None


class AgentReader:
    """Reads one agent in one frame, file by file.

    Args:
        index: the split.
        source: where depth comes from; ``None`` if there is none.
        ref, agent: which.
    """

    def __init__(self, index: SplitIndex, source: DepthSource | None, ref: FrameRef, agent: str) -> None:
        self.index, self.source, self.ref, self.agent = index, source, ref, agent
        self.key = FrameKey(ref.split, index.folder, ref.scenario, agent, ref.frame)
        self.problems: list[Problem] = []
        self.facts = AgentFacts(self.key, str(index.yaml_path(ref, agent)))
        self.files = AgentFiles()

    def problem(self, kind: str, path: Path, detail: str, root: Path | None = None) -> None:
        """Note a problem that leaving this agent out of this frame would end."""
        self.problems.append(Problem(kind, str(path), detail, (self.key,), str(root or self.index.root)))

    def read(self, whole: bool) -> None:
        """Read metadata, and with ``whole`` all other files too."""
        self._read_metadata()
        if whole and self.files.metadata is not None:
            self._read_sweep()
            self._read_images(self.files.metadata)
            if isinstance(self.source, DenseDepth):
                self._read_depth(self.source, self.files.metadata)

    def _read_metadata(self) -> None:
        path = self.index.yaml_path(self.ref, self.agent)
        content: Mapping[Any, Any] = {}
        try:
            content = load_metadata(path)
            metadata = read_agent(path, content=content)
        except MetadataError as error:
            self.problem(*diagnose(path, content, error))
            return
        except FrameError as error:
            self.problem("unreadable_metadata", path, error.reason)
            return
        facts = self.facts
        self.files.metadata = metadata
        facts.pose, facts.rig, facts.speed, facts.is_rsu = metadata.pose, metadata.rig, metadata.speed, metadata.is_rsu
        facts.ground = tuple(read_cords(path, "true_ego_pos", content)[:3].tolist())
        facts.others = {
            str(name): tuple(map(float, vehicle["location"]))  # YAML has 1e1 as text
            for name, vehicle in (content.get("vehicles") or {}).items()
            if str(name) in self.ref.agents
        }
        if np.isnan(metadata.pose_prior).any():  # the file does not tell
            return
        offset = relative_pose(metadata.pose, metadata.pose_prior)
        facts.gps_error_m = float(np.linalg.norm((metadata.pose_prior - metadata.pose)[[0, 2], 3]))
        facts.gps_error_deg = float(np.rad2deg(abs(np.arctan2(offset[0, 2], offset[2, 2]))))

    def _read_sweep(self) -> None:
        path = self.index.lidar_path(self.ref, self.agent)
        is_needed = self.source is not None and not isinstance(self.source, DenseDepth)
        try:
            self.files.sweep = read_sweep(path)
        except MissingFileError as error:
            if is_needed:
                self.problem("missing_lidar", path, error.reason)
            return
        except DataError as error:
            self.problem("unreadable_lidar", path, error.reason)
            return
        self.facts.num_points = len(self.files.sweep)
        self.facts.sweep_content = _digest([path])

    def _read_images(self, metadata: AgentMetadata) -> None:
        paths = [image_file(self.index.image_path(self.ref, self.agent, camera)) for camera in OPV2V_CAMERA_OF_SLOT]
        images = []
        for path in paths:
            try:
                image = read_image(path)
            except MissingFileError as error:
                self.problem("missing_image", path, error.reason)
            except DataError as error:
                self.problem("unreadable_image", path, error.reason)
            else:
                if image.shape[:2] == metadata.rig.image_size:
                    images.append(image)
                else:
                    self.problem("image_size", path, _sizes(image.shape, metadata.rig.image_size))
        if len(images) == len(paths):
            self.files.images = np.stack(images)
            self.facts.content = _digest(paths) + self.facts.sweep_content

    def _read_depth(self, source: DenseDepth, metadata: AgentMetadata) -> None:
        maps = []
        for camera in OPV2V_CAMERA_OF_SLOT:
            path = source.path(self.ref, self.agent, camera)
            try:
                stored = source.stored(self.ref, self.agent, camera)
            except MissingFileError as error:
                self.problem("missing_depth", path, error.reason, source.root)
            except DataError as error:
                self.problem("unreadable_depth", path, error.reason, source.root)
            else:
                if stored.shape == metadata.rig.image_size:
                    maps.append(stored.astype(np.float32))
                else:
                    self.problem("depth_size", path, _sizes(stored.shape, metadata.rig.image_size), source.root)
        if len(maps) == len(OPV2V_CAMERA_OF_SLOT):
            self.files.stored_depth = np.stack(maps)


def diagnose(path: Path, content: Mapping[Any, Any], error: MetadataError) -> tuple[str, Path, str]:
    """Kind, path and detail of what is wrong with metadata that parse as YAML."""
    if isinstance(error, SwappedCamerasError):
        return "cameras_swapped", path, error.reason
    if isinstance(error, ExtrinsicError):
        return _diagnose_extrinsic(path, content, error)
    if bad := _not_finite(content):
        return "pose_not_finite", path, f"NaN or infinity in {', '.join(bad)}"
    return "incomplete_metadata", path, error.reason


def _diagnose_extrinsic(path: Path, content: Mapping[Any, Any], error: ExtrinsicError) -> tuple[str, Path, str]:
    """Whether another sign would do away with the contradiction; poses and matrices are sound by themselves."""
    cameras = [content[name] for name in CAMERAS]
    poses = [read_cords(path, "lidar_pose", content), *(read_cords(path, "cords", camera) for camera in cameras)]
    cords = np.stack(poses)
    recorded = np.array([camera["extrinsic"] for camera in cameras], dtype=np.float64)
    for flip in FLIPS:
        for where, lidar, others in (
            ("lidar_pose and cords", True, True),
            ("lidar_pose", True, False),
            ("cords", False, True),
        ):
            if _extrinsic_gap(flipped(cords, flip, lidar, others), recorded) < EXTRINSIC_TOLERANCE:
                return flip, path, f"extrinsic agrees if {angle_of(flip)} in {where} has the other sign"
    return "extrinsic", path, error.reason


def _extrinsic_gap(cords: np.ndarray, recorded: np.ndarray) -> float:
    return float(np.abs(pose_ue_from_cv(invert(mounting(cords))) - recorded).max())


def _not_finite(content: Mapping[Any, Any]) -> list[str]:
    """Keys of poses and matrices that hold NaN or infinity; none unless all are there and hold numbers."""
    try:
        values = {key: content[key] for key in ("lidar_pose", "true_ego_pos")}
        values |= {f"{name}.{key}": content[name][key] for key in ("cords", "extrinsic") for name in CAMERAS}
        return [key for key, value in values.items() if not np.isfinite(np.array(value, dtype=np.float64)).all()]
    except (KeyError, TypeError, ValueError, OverflowError):
        return []


def _sizes(found: tuple[int, ...], expected: tuple[int, int]) -> str:
    shown = " x ".join(map(str, found[:2]))
    return f"{shown} (height x width), but the intrinsics are for {expected[0]} x {expected[1]}"


def _digest(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
