"""Depth sources: dense ``.npy``, CARLA-encoded or gray PNG, or the LiDAR sweeps of the same tick.

Dense sources give range along the unit ray of each pixel, float32, 0 = unknown, at the cameras' resolution and in slot
order; LiDAR gives the points that the cameras see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float, Float32

from coopmap.data.opv2v.errors import CorruptFrameError, DatasetLayoutError, FrameError
from coopmap.data.opv2v.gray_depth import GRAY_REMEDY, GrayDepthError, is_gray, read_gray_png
from coopmap.data.opv2v.images import check_size, decode_png
from coopmap.data.opv2v.index import FrameRef, SplitIndex, find_split_folder
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.metadata import AgentMetadata, read_agent
from coopmap.data.opv2v.npy import read_npy
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig
from coopmap.geometry.se3_numpy import relative_pose, transform_points
from coopmap.geometry.targets import SeenPoints

log = logging.getLogger(__name__)

SOURCES = ("auto", "npy", "png", "gray", "lidar")
KINDS = ("z", "ray")

CARLA_FAR_M = 1000.0
"""Range of CARLA's depth camera; the sky, and whatever is farther, reads as this."""

_SKY_M = CARLA_FAR_M * (1 - 1e-6)  # a far value may come back from float32 a little smaller
_LAST_BEFORE_SKY_M = float(np.nextafter(np.float32(_SKY_M), np.float32(0)))


class DepthSource(Protocol):
    """Where depth comes from."""

    @property
    def is_dense(self) -> bool:
        """Whether neighboring pixels have depth, as losses on normals and gradients need."""

    def first_path(self, ref: FrameRef, agent: str) -> Path:
        """The first file that :meth:`read` would open for an agent."""

    def paths(self, ref: FrameRef, agent: str) -> list[Path]:
        """The files that hold an agent's own depth."""

    def read(
        self, ref: FrameRef, agents: Mapping[str, AgentMetadata]
    ) -> Mapping[str, Float32[np.ndarray, "k h w"] | SeenPoints]:
        """Depth of each of the ``agents`` (some of ``ref.agents``) in a frame.

        Raises:
            FrameError: if a file is missing, damaged or of the wrong size.
        """

    def describe(self) -> str:
        """One line for the log."""


def select_depth_source(
    index: SplitIndex,
    depth_root: Path | str | None = None,
    source: str = "auto",
    kind: str = "z",
    max_depth_m: float = 200.0,
    merge_agents: bool = False,
    cached: str | None = None,
) -> DepthSource:
    """Choose the depth source of a split.

    ``auto`` with a depth root takes the dense ``.npy`` or else the CARLA PNGs in it; without, CARLA PNGs beside the
    images or else LiDAR. It never falls back from a depth root to LiDAR: that would hide a mistyped path; ``gray`` has
    to be asked for. Availability is judged by the first frame of each scenario.

    Args:
        index: the split.
        depth_root: second root, laid out as the first.
        source: one of :data:`SOURCES`.
        kind: what ``.npy`` files hold: z-depth (``z``) or range along the ray (``ray``).
        max_depth_m: longer ranges count as unknown.
        merge_agents: let every agent's sweep of the tick contribute to each agent's LiDAR depth.
        cached: the source that a cache of the split was made from: its files need not be there any more.

    Raises:
        ValueError: if ``source`` or ``kind`` is unknown, or ``npy`` is asked for without a depth root.
        DatasetLayoutError: if the depth root is missing, or no file of the source is there.
    """
    if source not in SOURCES:
        raise ValueError(f"data.depth.source must be one of {', '.join(SOURCES)}, not {source!r}")
    if kind not in KINDS:
        raise ValueError(f"data.depth.kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if source == "npy" and depth_root is None:
        raise ValueError("data.depth.source=npy needs data.depth_root")
    root = index.root if depth_root is None else Path(depth_root).expanduser()
    if not root.is_dir():
        raise DatasetLayoutError(
            root, "the depth root does not exist", "Correct data.depth_root, or say data.depth_root=null"
        )
    # the second root may have another of the usual names for the split
    folder = index.folder if (root / index.folder).is_dir() else find_split_folder(root, index.split) or ""
    sources: dict[str, DepthSource] = {
        "npy": DenseDepth(index, root, "{frame}_camera{camera}_depth.npy", kind, max_depth_m, folder),
        "png": DenseDepth(index, root, "{frame}_depth{camera}.png", "z", max_depth_m, folder),
        "gray": DenseDepth(index, root, "{frame}_depth{camera}.png", "z", max_depth_m, folder, is_gray=True),
        "lidar": LidarDepth(index, max_depth_m, merge_agents),
    }
    wanted = [source] if source != "auto" else ["png", "lidar"] if depth_root is None else ["npy", "png"]
    first_frames = [index.frame(i) for i in np.unique(index.frame_scenario, return_index=True)[1]]
    expected = []
    for name in wanted:
        paths = [sources[name].first_path(ref, ref.agents[0]) for ref in first_frames]
        if any(path.exists() for path in paths):
            return sources[name]
        expected.append(paths[0])
    if cached in wanted:
        return sources[cached]
    raise DatasetLayoutError(
        expected[0],
        "no such depth file" + "".join(f", nor {path}" for path in expected[1:]) + ", nor any in the other scenarios",
        "Unpack the .pcd files" if "lidar" in wanted else "Correct data.depth_root, or leave it out to use LiDAR",
    )


@dataclass(frozen=True)
class DenseDepth:
    """One depth image per camera: float ``.npy``, or PNG in CARLA's 24-bit encoding or 8-bit gray.

    Attributes:
        index: the split.
        root: where the files lie, laid out as the dataset.
        pattern: file name in terms of ``frame`` and ``camera`` (OPV2V number).
        kind: ``z`` or ``ray``.
        max_depth_m: longer ranges count as unknown.
        folder: of the split below ``root``; by default that of the dataset.
        is_gray: PNG files are 8-bit gray, whole meters, as OPV2V-H has them.
    """

    index: SplitIndex
    root: Path
    pattern: str
    kind: str
    max_depth_m: float
    folder: str = ""
    is_gray: bool = False
    is_dense = True

    @property
    def is_png(self) -> bool:
        """PNG rather than ``.npy``."""
        return self.pattern.endswith(".png")

    @property
    def is_carla_png(self) -> bool:
        """PNG in CARLA's 24-bit encoding."""
        return self.is_png and not self.is_gray

    def first_path(self, ref: FrameRef, agent: str) -> Path:
        """See :class:`DepthSource`."""
        return self.path(ref, agent, OPV2V_CAMERA_OF_SLOT[0])

    def paths(self, ref: FrameRef, agent: str) -> list[Path]:
        """See :class:`DepthSource`."""
        return [self.path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]

    def read(self, ref: FrameRef, agents: Mapping[str, AgentMetadata]) -> dict[str, Float32[np.ndarray, "k h w"]]:
        """See :class:`DepthSource`."""
        return {agent: self._read_agent(ref, agent, metadata.rig) for agent, metadata in agents.items()}

    def describe(self) -> str:
        """See :class:`DepthSource`."""
        content = "z-depth, converted to range" if self.kind == "z" else "range along the ray"
        encoding = ", 8-bit gray in meters" if self.is_gray else ""
        return f"depth: dense, {self.root}/**/{self.pattern}{encoding} ({content}; up to {self.max_depth_m:g} m)"

    def path(self, ref: FrameRef, agent: str, camera: int) -> Path:
        """File of OPV2V camera number ``camera``."""
        folder = Path(self.folder or self.index.folder, ref.scenario, agent)
        return self.root / folder / self.pattern.format(frame=ref.frame, camera=camera)

    def stored(self, ref: FrameRef, agent: str, camera: int) -> np.ndarray:
        """What the file of a camera holds, whatever that means.

        Raises:
            FrameError: if it is missing or damaged.
        """
        read: Callable[[Path], np.ndarray] = read_npy if self.pattern.endswith(".npy") else _read_carla_png
        return (read_gray_png if self.is_gray else read)(self.path(ref, agent, camera))

    def _read_agent(self, ref: FrameRef, agent: str, rig: Rig) -> Float32[np.ndarray, "k h w"]:
        depth = np.empty((len(rig.intrinsics), *rig.image_size), dtype=np.float32)
        length_of_ray = z_to_range(rig)
        for slot, camera in enumerate(OPV2V_CAMERA_OF_SLOT):
            image = self.stored(ref, agent, camera)
            check_size(self.path(ref, agent, camera), image.shape, rig.image_size)
            self._write_range(np.ascontiguousarray(image, np.float32), length_of_ray[slot], depth[slot])
        return depth

    def ranges(self, stored: Float32[np.ndarray, "k h w"], rig: Rig) -> Float32[np.ndarray, "k h w"]:
        """Range along the ray, 0 = unknown, from what the files of all cameras hold."""
        depth = np.empty_like(stored)
        for image, length_of_ray, ranges in zip(stored, z_to_range(rig), depth, strict=True):
            self._write_range(image, length_of_ray, ranges)
        return depth

    def _write_range(
        self,
        stored: Float32[np.ndarray, "h w"],
        length_of_ray: Float32[np.ndarray, "h w"],
        depth: Float32[np.ndarray, "h w"],
    ) -> None:
        """What a file stores as range, into ``depth``; OpenCV takes a tenth of numpy's time for this."""
        cv2.threshold(stored, 0, 0, cv2.THRESH_TOZERO, dst=depth)
        cv2.patchNaNs(depth, 0)
        cv2.threshold(depth, _LAST_BEFORE_SKY_M, 0, cv2.THRESH_TOZERO_INV, dst=depth)
        if self.kind == "z":
            cv2.multiply(depth, length_of_ray, dst=depth)
        cv2.threshold(depth, self.max_depth_m, 0, cv2.THRESH_TOZERO_INV, dst=depth)


@dataclass(frozen=True)
class LidarDepth:
    """LiDAR sweeps of one tick, z-buffered into the cameras, points that a camera cannot see culled.

    Attributes:
        index: the split.
        max_depth_m: longer ranges count as unknown.
        merge_agents: use the sweeps of all agents of the frame, not the agent's own alone. Of the others than those
            that are asked for, what cannot be read is warned of and left out: depth is sparser without.
    """

    index: SplitIndex
    max_depth_m: float
    merge_agents: bool
    is_dense = False

    def first_path(self, ref: FrameRef, agent: str) -> Path:
        """See :class:`DepthSource`."""
        return self.index.lidar_path(ref, agent)

    def paths(self, ref: FrameRef, agent: str) -> list[Path]:
        """See :class:`DepthSource`."""
        return [self.index.lidar_path(ref, agent)]

    def read(self, ref: FrameRef, agents: Mapping[str, AgentMetadata]) -> dict[str, SeenPoints]:
        """See :class:`DepthSource`."""
        sweeps, poses = {}, {}
        for sender in ref.agents if self.merge_agents else agents:
            try:
                sweep = read_sweep(self.index.lidar_path(ref, sender))
                metadata = agents.get(sender) or read_agent(self.index.yaml_path(ref, sender), with_vehicles=False)
            except FrameError as error:
                if sender in agents:
                    raise
                _warn_of_missing_sweep(str(error))
            else:
                sweeps[sender], poses[sender] = sweep, metadata.pose
        return self.seen(sweeps, poses, agents)

    def seen(
        self,
        sweeps: Mapping[str, Float32[np.ndarray, "_ 3"]],
        poses: Mapping[str, Float[np.ndarray, "4 4"]],
        agents: Mapping[str, AgentMetadata],
    ) -> dict[str, SeenPoints]:
        """What the cameras of some agents see of the sweeps of all that send any.

        Args:
            sweeps: by agent, each in its frame.
            poses: ``T_world_agent`` of those.
            agents: whose cameras.
        """
        return {
            agent: self._project(_gather(agent, sweeps, poses, self.merge_agents), sweeps[agent], metadata.rig)
            for agent, metadata in agents.items()
        }

    def describe(self) -> str:
        """See :class:`DepthSource`."""
        whose = "the sweeps of all agents" if self.merge_agents else "each agent's own sweep"
        return f"depth: sparse, LiDAR, {whose} of the tick in {self.index.root} (up to {self.max_depth_m:g} m)"

    def _project(self, points: np.ndarray, own_sweep: np.ndarray, rig: Rig) -> SeenPoints:
        seen = cull_hidden(see(drop_own_body(points), rig), rig.intrinsics[:, 0, 0], sample_spacing(own_sweep))
        return seen[seen.ranges <= self.max_depth_m]


@lru_cache(maxsize=1024)
def _warn_of_missing_sweep(reason: str) -> None:
    """Once per process: every sample of a frame reads the sweeps of all its agents."""
    log.warning("left out of the merged sweeps of its tick: %s", reason)


def _gather(
    agent: str, sweeps: Mapping[str, np.ndarray], poses: Mapping[str, np.ndarray], merge: bool
) -> Float32[np.ndarray, "n 3"]:
    """The agent's own sweep, or all of them, in its frame."""
    if not merge:
        return sweeps[agent]
    return np.concatenate([
        transform_points(relative_pose(poses[agent], poses[sender]).astype(np.float32), points)
        for sender, points in sweeps.items()
    ])  # fmt: skip


def z_to_range(rig: Rig) -> Float32[np.ndarray, "k h w"]:
    """Length of each pixel's ray with unit z; multiplies z-depth into range."""
    return _length_of_rays(rig.intrinsics.tobytes(), rig.image_size)


@lru_cache(maxsize=4)
def _length_of_rays(intrinsics: bytes, size: tuple[int, int]) -> Float32[np.ndarray, "k h w"]:
    lengths = []
    for (fx, _, cx), (_, fy, cy), _ in np.frombuffer(intrinsics).reshape(-1, 3, 3):
        x = (np.arange(size[1]) + 0.5 - cx) / fx
        y = (np.arange(size[0]) + 0.5 - cy) / fy
        lengths.append(np.sqrt(1 + x * x + (y * y)[:, None]).astype(np.float32))
    return np.stack(lengths)


def _read_carla_png(path: Path) -> Float32[np.ndarray, "h w"]:
    """Decode CARLA's depth camera: 24 bits over 1000 m, red the lowest byte, blue the highest."""
    image = decode_png(path, cv2.IMREAD_UNCHANGED)
    if image.dtype == np.uint8 and is_gray(image):
        raise GrayDepthError(path, "not CARLA-encoded depth: gray (R = G = B) is no 24-bit code", GRAY_REMEDY)
    if image.dtype != np.uint8 or image.ndim != 3:
        raise CorruptFrameError(
            path, "not CARLA-encoded depth: expected 8-bit RGB", "Write CARLA's 24-bit encoding, or .npy"
        )
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    return (red + 256 * green + 65536 * blue) * np.float32(CARLA_FAR_M / (256**3 - 1))
