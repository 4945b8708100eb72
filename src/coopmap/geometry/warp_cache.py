"""One panorama warp per distinct rig, in memory and on disk.

Recorded calibrations carry noise of about 1e-5. The sampling pattern is therefore computed from a rig rounded to a grid
(1 mm, 0.1 mrad, 0.01 pixels; 5 cm for the height above ground), so that noise finds the same entry and the pattern
depends on nothing else. Target geometry uses the exact rig (:mod:`coopmap.geometry.targets`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from coopmap.geometry.panorama import PanoramaSpec, PanoramaWarp, build_warp
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.stored_arrays import load_arrays, store_arrays

GRID_M, GRID_ROTATION, GRID_GROUND_M = 1e-3, 1e-4, 5e-2
FORMAT_VERSION = 1
MAX_WARPS = 16
"""Rigs whose warps stay in memory: some 12 MB each at full size, in each loader process."""


def _snap(values: np.ndarray, grid: float) -> np.ndarray:
    # A quarter step of offset: real calibrations sit on round numbers, which must not be the borders between cells.
    return np.round(values / grid + 0.25) * grid - 0.25 * grid


def rounded_rig(rig: Rig) -> Rig:
    """The rig on the grid; rotations are made orthonormal again."""
    poses = rig.agent_from_camera.copy()
    poses[:, :3, 3] = _snap(poses[:, :3, 3], GRID_M)
    left, _, right = np.linalg.svd(_snap(poses[:, :3, :3], GRID_ROTATION))
    poses[:, :3, :3] = left @ right
    return Rig(
        intrinsics=np.round(rig.intrinsics, 2),
        agent_from_camera=poses,
        image_size=rig.image_size,
        ground_height_m=float(_snap(np.array(rig.ground_height_m), GRID_GROUND_M)),
    )


@lru_cache
def _description(spec: PanoramaSpec, image_size: tuple[int, int]) -> bytes:
    return json.dumps([FORMAT_VERSION, asdict(spec), image_size], sort_keys=True).encode()


class WarpCache:
    """Gives the warp of a rig, computing it once as long as no more than :data:`MAX_WARPS` are in use.

    Args:
        spec: the panorama.
        directory: where ``.npz`` files are kept for other processes and runs; ``None`` keeps them in memory only.
    """

    def __init__(self, spec: PanoramaSpec, directory: str | Path | None = None) -> None:
        self.spec = spec
        self.directory = Path(directory).expanduser() if directory is not None else None
        self._warps: dict[str, PreparedWarp] = {}

    def __len__(self) -> int:
        return len(self._warps)

    def get(self, rig: Rig) -> PreparedWarp:
        """The warp of a rig, from memory, from disk, or computed and stored."""
        rig = rounded_rig(rig)
        key = self.key(rig)
        if key not in self._warps:
            self._warps[key] = PreparedWarp(self._load_or_build(key, rig), rig, self.spec)
        self._warps[key] = self._warps.pop(key)  # the last in use goes last
        if len(self._warps) > MAX_WARPS:
            self._warps.pop(next(iter(self._warps)))
        return self._warps[key]

    def key(self, rig: Rig) -> str:
        """Name of the entry of a rounded rig."""
        digest = hashlib.sha256(_description(self.spec, rig.image_size))
        for values in (rig.intrinsics, rig.agent_from_camera[:, :3], np.array(rig.ground_height_m)):
            digest.update(np.round(values, 7).astype(np.float32).tobytes())
        return digest.hexdigest()[:16]

    def _load_or_build(self, key: str, rig: Rig) -> PanoramaWarp:
        if self.directory is None:
            return build_warp(rig, self.spec)
        path = self.directory / f"warp_{key}.npz"
        stored = load_arrays(path, PanoramaWarp._fields)
        if stored is not None and (warp := _checked(stored, rig, self.spec)) is not None:
            return warp
        warp = build_warp(rig, self.spec)
        store_arrays(path, warp._asdict())
        return warp


def _checked(stored: dict[str, np.ndarray], rig: Rig, spec: PanoramaSpec) -> PanoramaWarp | None:
    """The stored map, unless it is of another shape or leads out of the images."""
    warp = PanoramaWarp(**stored)
    size, number = (spec.camera.height, spec.camera.width), len(warp.blend_at)
    shapes = [size, size, (*size, 2), (number,), (number,), (number, 2), (number,)]
    if [values.shape for values in warp] != shapes or any(values.dtype.kind not in "if" for values in warp):
        return None
    limits = (
        (warp.winner, len(rig.intrinsics)),
        (warp.source, rig.image_size[0] * rig.image_size[1]),
        (warp.blend_at, size[0] * size[1]),
        (warp.blend_camera, len(rig.intrinsics)),
    )
    fits = all(values.dtype.kind == "i" and (values >= -1).all() and (values < limit).all() for values, limit in limits)
    return warp if fits else None
