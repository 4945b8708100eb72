"""The pose of every agent in every frame of a split: who hears whom, without opening a frame.

Only the ``lidar_pose`` of each YAML file is parsed, which is some thirty times faster than the whole file; the table is
kept in ``data.cache_dir``, and each row of it holds as long as size and time of its file are those it was read from.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from coopmap.data.opv2v import DataError, FrameError, MissingFileError, SplitIndex
from coopmap.data.opv2v.files import read_bytes
from coopmap.data.opv2v.metadata import LARGEST_POSE, read_cords
from coopmap.data.opv2v.yaml_file import parse, read_text
from coopmap.data.turns import first_come
from coopmap.geometry import pose_cv_from_ue, pose_from_carla

log = logging.getLogger(__name__)

_KEY = b"lidar_pose:"
_LONGEST_ENTRY = 1024
_THREADS = 8
_AT_ONCE = 4096


STAMP = np.dtype([("size", np.int64), ("mtime_ns", np.int64)])
ROW = np.dtype([("cords", np.float64, 6), *STAMP.descr])


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

    @property
    def pair_start(self) -> Int[np.ndarray, " f+1"]:
        """Frame ``i`` has the pairs ``pair_start[i] : pair_start[i + 1]``, all agents with one another, row by row."""
        return np.append(0, np.cumsum(np.diff(self.start).astype(np.int64) ** 2))

    @classmethod
    def build(cls, index: SplitIndex, cache_dir: Path | str | None = None) -> PoseTable:
        """Read the poses of a split, or take them from the cache."""
        path = table_path(index, cache_dir) if cache_dir is not None else None
        if path is None:
            return cls._read(index)
        with first_come(path):
            return cls._read(index, path)

    @classmethod
    def _read(cls, index: SplitIndex, path: Path | None = None) -> PoseTable:
        """:meth:`build`, with the file that the table is kept in."""
        stamps = file_stamps(index) if path is not None else None
        table = _load(path, stamps) if path is not None and stamps is not None else None
        cords = np.full((len(index.frame_agents), 6), np.nan) if table is None else table["cords"].copy()
        # what is unreadable is read again each time: its reason is to be told, or it has been repaired
        rows = np.flatnonzero(np.isnan(cords).any(axis=1))
        if table is not None and stamps is not None:
            changed = np.flatnonzero((table["size"] != stamps["size"]) | (table["mtime_ns"] != stamps["mtime_ns"]))
            rows = np.union1d(rows, changed)
        skipped = _read_rows(index, rows, cords)
        if path is not None and stamps is not None and (table is None or len(rows)):
            keep(path, stamps, cords)
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


def file_stamps(index: SplitIndex) -> np.ndarray:
    """Size and time of the YAML file of each row; -1 where there is none."""
    folder_of = index.frame_scenario[np.repeat(np.arange(len(index)), index.num_agents)].astype(np.int64)
    folder_of = folder_of * len(index.agents) + index.frame_agents
    frame_of = np.repeat(np.arange(len(index)), index.num_agents)
    stamps = np.full(len(folder_of), -1, STAMP)
    order = np.argsort(folder_of, kind="stable")
    borders = np.flatnonzero(np.diff(folder_of[order], prepend=-1, append=-1))

    def look(part: slice) -> None:
        """Fill in the stamps of one folder (rows ``order[part]``): opened once, its files are found quickly."""
        rows = order[part]
        scenario, agent = divmod(int(folder_of[rows[0]]), len(index.agents))
        folder = index.root / index.folder / index.scenarios[scenario].decode() / index.agents[agent].decode()
        try:
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return
        try:
            for row in rows.tolist():
                try:
                    found = os.stat(index.frame_names[frame_of[row]] + b".yaml", dir_fd=place)
                except OSError:
                    continue
                stamps[row] = found.st_size, found.st_mtime_ns
        finally:
            os.close(place)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(look, itertools.starmap(slice, itertools.pairwise(borders.tolist()))))
    return stamps


def keep(path: Path, stamps: np.ndarray, cords: Float[np.ndarray, "n 6"]) -> None:
    """Write a table of poses with what tells whether it still holds."""
    rows = np.empty(len(cords), ROW)
    rows["cords"], rows["size"], rows["mtime_ns"] = cords, stamps["size"], stamps["mtime_ns"]
    buffer = io.BytesIO()
    np.save(buffer, rows)
    content = buffer.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
        temporary.write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
        os.replace(temporary, path)
    except OSError as error:
        log.warning("%s cannot be written (%s): poses are read again in each run", path, error.strerror)


def _load(path: Path, stamps: np.ndarray) -> np.ndarray | None:
    """Rows of a table; ``None`` if there is none, or it is damaged or of another split."""
    try:
        content = read_bytes(path, 2**31)
    except MissingFileError:
        return None
    except FrameError as error:
        log.warning("%s: reading all poses again", error)
        return None
    if zlib.crc32(content[:-4]).to_bytes(4, "little") != content[-4:]:
        log.warning("%s is damaged: reading all poses again", path)
        return None
    rows = np.load(io.BytesIO(content[:-4]), allow_pickle=False)
    return rows if rows.dtype == ROW and rows.shape == stamps.shape else None


def fingerprint(index: SplitIndex, layout: str = "") -> str:
    """Short digest of where a split lies and which frames and agents it has.

    Args:
        index: of the split.
        layout: of what is kept of it, where that is not told otherwise.
    """
    digest = hashlib.sha256(f"{index.root.resolve()}{layout}".encode())
    arrays = (index.scenarios, index.agents, index.frame_names, index.frame_scenario, index.frame_agents)
    for values in arrays:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _read_rows(index: SplitIndex, rows: Int[np.ndarray, " r"], cords: Float[np.ndarray, "n 6"]) -> tuple[str, ...]:
    """Read the poses of some rows into ``cords``, NaN where unreadable; path and reason of each of these."""
    from rich.progress import track

    frames = np.searchsorted(index.agent_start, rows, side="right") - 1
    paths = (_path_of(index, frame, row) for frame, row in zip(frames.tolist(), rows.tolist(), strict=True))
    skipped = []
    with ThreadPoolExecutor(_THREADS) as pool:
        # some at a time: a pool remembers everything that it is given at once
        batches = iter(lambda: list(itertools.islice(paths, _AT_ONCE)), [])
        results = itertools.chain.from_iterable(pool.map(_try_read, batch) for batch in batches)
        shown = track(
            results, description=f"poses of {index.split}", total=len(rows), transient=True, disable=len(rows) < 2000
        )
        for row, result in zip(rows.tolist(), shown, strict=True):
            if isinstance(result, DataError):
                skipped.append(str(result))
            cords[row] = np.nan if isinstance(result, DataError) else result
    return tuple(skipped)


def _path_of(index: SplitIndex, frame: int, row: int) -> Path:
    ref = index.frame(frame)
    return index.yaml_path(ref, ref.agents[row - int(index.agent_start[frame])])


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
