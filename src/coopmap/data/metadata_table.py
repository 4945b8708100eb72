"""What the YAML files of a split say, in one memory-mapped table: training parses each file once, not once per sample.

Rows are filled as samples need them, by any number of processes at once. A row counts if the sizes and times of its
file and of the image beside it, which says how large images are, are still those that it was made from, and if its
checksum is right; else the file is parsed again. Boxes of vehicles are not kept.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np

from coopmap.data.opv2v import AgentMetadata, SplitIndex, read_agent
from coopmap.data.opv2v.images import image_stamp
from coopmap.data.pose_table import fingerprint
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, Rig

log = logging.getLogger(__name__)

NUM_CAMERAS = len(OPV2V_CAMERA_OF_SLOT)

ROW = np.dtype(
    [
        ("checksum", np.uint32),
        ("is_rsu", np.uint32),
        ("size", np.int64),
        ("mtime_ns", np.int64),
        ("image_bytes", np.int64),
        ("image_mtime_ns", np.int64),
        ("image_size", np.int64, 2),
        ("ground_height_m", np.float64),
        ("speed", np.float64),
        ("pose", np.float64, (4, 4)),
        ("pose_prior", np.float64, (4, 4)),
        ("intrinsics", np.float64, (NUM_CAMERAS, 3, 3)),
        ("agent_from_camera", np.float64, (NUM_CAMERAS, 4, 4)),
    ]
)
"""1.2 kB per agent and frame."""


STAMPS = ["size", "mtime_ns", "image_bytes", "image_mtime_ns"]
"""Fields that say which files a row was made from."""


class MetadataTable:
    """Metadata of the rows of an index (``index.frame_agents``).

    Args:
        index: the split.
        cache_dir: folder of the table.
    """

    def __init__(self, index: SplitIndex, cache_dir: Path | str) -> None:
        self.path = Path(cache_dir).expanduser() / f"metadata_{index.split}_{fingerprint(index, str(ROW.descr))}.bin"
        self.num_rows = len(index.frame_agents)
        self._rows: np.ndarray | None = None
        self._is_usable = True

    def __getstate__(self) -> dict:
        return {**vars(self), "_rows": None}  # other processes open the file themselves

    def read(self, row: int, path: Path) -> AgentMetadata:
        """:func:`read_agent` without vehicles, from the table if it can be.

        Raises:
            FrameError: see :func:`read_agent`.
        """
        try:
            found = path.stat()
        except OSError:  # the reader tells what is wrong, or storage is well again
            return read_agent(path, with_vehicles=False)
        stamps = (found.st_size, found.st_mtime_ns, *image_stamp(path))
        rows = self._open()
        if rows is None:
            return read_agent(path, with_vehicles=False)
        entry = rows[row].copy()
        if entry[STAMPS].item() == stamps and entry["checksum"] == _checksum(entry):
            return _unpacked(entry, path)
        metadata = read_agent(path, with_vehicles=False)
        rows[row] = _packed(metadata, stamps)
        return metadata

    def _open(self) -> np.ndarray | None:
        """The rows; ``None`` if they cannot be kept, which is said once."""
        if self._rows is None and self._is_usable:
            try:
                expected = self.num_rows * ROW.itemsize
                if not self.path.exists() or self.path.stat().st_size != expected:
                    _create(self.path, expected)
                self._rows = np.memmap(self.path, ROW, "r+", shape=(self.num_rows,))
            except OSError as error:
                self._is_usable = False
                log.warning("%s cannot be written (%s): metadata are parsed for each sample", self.path, error.strerror)
        return self._rows


def _create(path: Path, size: int) -> None:
    """An empty table. Of two processes that make one at once, one fills a file that nobody sees; no harm is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        # with its blocks, where the system can: a disk that is full when a page is written ends the process by a signal
        getattr(os, "posix_fallocate", _extend)(handle, 0, size)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _extend(handle: int, _: int, size: int) -> None:
    os.ftruncate(handle, size)


def _checksum(entry: np.void | np.ndarray) -> int:
    return zlib.crc32(entry.tobytes()[4:])


def _packed(metadata: AgentMetadata, stamps: tuple[int, ...]) -> np.ndarray:
    entry = np.zeros((), ROW)
    rig = metadata.rig
    values = {
        **dict(zip(STAMPS, stamps, strict=True)),
        "is_rsu": metadata.is_rsu,
        "image_size": rig.image_size,
        "ground_height_m": rig.ground_height_m,
        "speed": metadata.speed,
        "pose": metadata.pose,
        "pose_prior": metadata.pose_prior,
        "intrinsics": rig.intrinsics,
        "agent_from_camera": rig.agent_from_camera,
    }
    for name, value in values.items():
        entry[name] = value
    entry["checksum"] = _checksum(entry)
    return entry


def _unpacked(entry: np.void, path: Path) -> AgentMetadata:
    height, width = entry["image_size"].tolist()
    return AgentMetadata(
        path=path,
        pose=entry["pose"].copy(),
        pose_prior=entry["pose_prior"].copy(),
        rig=Rig(
            intrinsics=entry["intrinsics"].copy(),
            agent_from_camera=entry["agent_from_camera"].copy(),
            image_size=(height, width),
            ground_height_m=float(entry["ground_height_m"]),
        ),
        speed=float(entry["speed"]),
        is_rsu=bool(entry["is_rsu"]),
        vehicles=None,
    )
