"""The pose of every agent in every frame of a split: who hears whom, without opening a frame.

Only the ``lidar_pose`` of each YAML file is parsed, which is some thirty times faster than the whole file; the table is
kept in ``data.cache_dir``.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from coopmap.data.opv2v import DataError, FrameError, SplitIndex
from coopmap.data.opv2v.metadata import LARGEST_POSE, read_cords
from coopmap.data.opv2v.yaml_file import parse, read_text
from coopmap.geometry import pose_cv_from_ue, pose_from_carla

log = logging.getLogger(__name__)

_KEY = b"lidar_pose:"
_LONGEST_ENTRY = 1024
_THREADS = 8
_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class PoseTable:
    """CARLA 6-vectors of the rows of an index (``index.frame_agents``); NaN where the file is unreadable.

    Attributes:
        cords: ``(x, y, z, roll, yaw, pitch)``, meters and degrees, CARLA axes.
        start: frame ``i`` has the rows ``start[i] : start[i + 1]``.
        skipped: path and reason of each unreadable file.
    """

    cords: Float[np.ndarray, "n 6"]
    start: Int[np.ndarray, " f+1"]
    skipped: tuple[str, ...] = ()

    @classmethod
    def build(cls, index: SplitIndex, cache_dir: Path | str | None = None) -> PoseTable:
        """Read the poses of a split, or take them from the cache."""
        path = None
        if cache_dir is not None:
            path = table_path(index, cache_dir)
        if path is not None and path.is_file():
            cords = np.load(path, allow_pickle=False)
            if cords.shape == (len(index.frame_agents), 6):
                return cls(cords, index.agent_start)
        cords, skipped = _read_all(index)
        if path is not None and not skipped:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
            np.save(temporary, cords)
            os.replace(temporary, path)
        return cls(cords, index.agent_start, skipped)

    def __len__(self) -> int:
        return len(self.start) - 1

    def poses(self, frame: int) -> Float[np.ndarray, "a 4 4"]:
        """``T_world_agent`` of the frame's agents, OpenCV axes; NaN where unreadable."""
        return self.poses_of(slice(self.start[frame], self.start[frame + 1]))

    def poses_of(self, rows: slice | Int[np.ndarray, " r"]) -> Float[np.ndarray, "r 4 4"]:
        """:meth:`poses` of any rows."""
        cords = self.cords[rows]
        poses = np.full((len(cords), 4, 4), np.nan)
        readable = np.isfinite(cords).all(axis=-1)
        poses[readable] = pose_cv_from_ue(pose_from_carla(cords[readable]))
        return poses

    def hearing(self, frame: int, range_m: float) -> Bool[np.ndarray, "a a"]:
        """Whether agents are within communication range of each other (each of itself, if readable).

        As in OPV2V's own code, the range is horizontal.
        """
        position = self.cords[self.start[frame] : self.start[frame + 1], :2]
        distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
        return distance <= range_m  # False for NaN


def table_path(index: SplitIndex, cache_dir: Path | str) -> Path:
    """File that the poses of a split are kept in."""
    return Path(cache_dir).expanduser() / f"poses_{index.split}_{fingerprint(index)}.npy"


def fingerprint(index: SplitIndex) -> str:
    """Short digest of where a split lies and which frames and agents it has."""
    digest = hashlib.sha256(str(index.root.resolve()).encode())
    arrays = (index.scenarios, index.agents, index.frame_names, index.frame_scenario, index.frame_agents)
    for values in arrays:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _read_all(index: SplitIndex) -> tuple[Float[np.ndarray, "n 6"], tuple[str, ...]]:
    from rich.progress import track

    refs = (index.frame(i) for i in range(len(index)))
    paths = (index.yaml_path(ref, agent) for ref in refs for agent in ref.agents)
    number = len(index.frame_agents)
    cords = np.full((number, 6), np.nan)
    skipped = []
    with ThreadPoolExecutor(_THREADS) as pool:
        # some at a time: a pool remembers everything that it is given at once
        batches = iter(lambda: list(itertools.islice(paths, _AT_ONCE)), [])
        results = itertools.chain.from_iterable(pool.map(_try_read, batch) for batch in batches)
        shown = track(
            results, description=f"poses of {index.split}", total=number, transient=True, disable=number < 2000
        )
        for row, result in enumerate(shown):
            if isinstance(result, DataError):
                skipped.append(str(result))
            else:
                cords[row] = result
    return cords, tuple(skipped)


def _try_read(path: Path) -> Float[np.ndarray, " 6"] | DataError:
    try:
        return read_lidar_pose(path)
    except DataError as error:
        return error


def read_lidar_pose(path: Path) -> Float[np.ndarray, " 6"]:
    """``lidar_pose`` of one YAML file, without parsing the rest.

    Raises:
        MissingFileError: if there is no such file.
        CorruptFrameError: if the entry cannot be parsed.
        MetadataError: if there is no such entry, or it is not six finite numbers.
    """
    text = read_text(path)
    begin = 0 if text.startswith(_KEY) else text.find(b"\n" + _KEY) + 1
    if begin or text.startswith(_KEY):
        lines = text[begin : begin + _LONGEST_ENTRY].split(b"\n", maxsplit=8)
        entry = [lines[0]]
        for line in lines[1:8]:
            if line[:1] not in (b"-", b" "):  # the next top-level key
                break
            entry.append(line)
        try:
            values = np.array(parse(path, b"\n".join(entry))["lidar_pose"])
        except (FrameError, TypeError, ValueError, KeyError, OverflowError):
            values = np.empty(0)
        if values.shape == (6,) and values.dtype == np.float64 and (np.abs(values) <= LARGEST_POSE).all():
            return values
    return read_cords(path, "lidar_pose")  # in another form, or with something to tell
