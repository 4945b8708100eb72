"""Co-visibility of all pairs of agents of a split, measured once from the depth that training learns from."""

from __future__ import annotations

import hashlib
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt64
from torch.utils.data import DataLoader, Dataset

from coopmap.data.cache.shards import fingerprints
from coopmap.data.opv2v import AgentMetadata, DepthSource, FrameError, SplitIndex, read_agent
from coopmap.data.pose_table import PoseTable, fingerprint
from coopmap.data.turns import first_come
from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.geometry.covisibility import MAX_COLUMNS, is_seen, range_images
from coopmap.geometry.se3_numpy import relative_pose, transform_points
from coopmap.geometry.stored_arrays import load_arrays, store_arrays
from coopmap.geometry.targets import SeenPoints

log = logging.getLogger(__name__)

ARRAYS = ("shares", "stamps")

CAMERA_COLUMNS = 200
"""Of dense depth every so many pixels are used that an image has about this many columns, of half a degree each."""

MAX_QUERIES = 8192
"""Of an agent's points at most about so many are looked for in the range images of the others."""

_THREADS = 16  # as many as look at folders


def split_covisibility(
    index: SplitIndex,
    poses: PoseTable,
    depth_source: DepthSource,
    range_m: float,
    cache_dir: Path | str | None = None,
    num_workers: int = 0,
) -> Float32[np.ndarray, " p"]:
    """Measure the co-visibility of the pairs of a split within ``range_m``, or take it from the cache.

    Frames that could not be read before, or whose files have changed, are measured again.

    Returns:
        For each frame of ``a`` agents ``a * a`` values, row by row: the share of an agent's points that the other sees
        too, mean of both directions. 1 on the diagonal; NaN where agents are out of range or have no depth.
    """
    frames = _Frames(index, poses, depth_source, range_m)
    if cache_dir is None:
        values, _ = _nothing_kept(poses)
        _measure(frames, np.arange(len(frames)), values, num_workers)
        return values
    settings = (depth_source.describe(), range_m, CAMERA_COLUMNS, MAX_QUERIES, MAX_COLUMNS, ARRAYS)
    digest = hashlib.sha256(f"{fingerprint(index)} {settings}".encode() + poses.cords.tobytes()).hexdigest()[:16]
    path = Path(cache_dir).expanduser() / f"covisibility_{index.split}_{digest}.npz"
    stamps = _stamps(frames)  # before anything is read: what changes meanwhile is measured again
    with first_come(path):
        values, measured_from = _kept(path, poses)
        changed = np.flatnonzero(measured_from != stamps)
        if len(changed):
            readable = changed[_measure(frames, changed, values, num_workers)]
            measured_from[readable] = stamps[readable]
            if len(readable):
                store_arrays(path, dict(zip(ARRAYS, (values, measured_from), strict=True)))
    return values


def _kept(path: Path, poses: PoseTable) -> tuple[Float32[np.ndarray, " p"], UInt64[np.ndarray, " f"]]:
    """What an earlier run has measured, and the stamp of each frame then; 0 where it could not be read."""
    kept, nothing = load_arrays(path, ARRAYS), _nothing_kept(poses)
    if kept is None or any(kept[name].shape != array.shape for name, array in zip(ARRAYS, nothing, strict=True)):
        return nothing
    return kept["shares"], kept["stamps"]


def _nothing_kept(poses: PoseTable) -> tuple[Float32[np.ndarray, " p"], UInt64[np.ndarray, " f"]]:
    return np.full(poses.pair_start[-1], np.nan, np.float32), np.zeros(len(poses), np.uint64)


def _stamps(frames: _Frames) -> UInt64[np.ndarray, " f"]:
    """One for each frame, of its files; threads wait for network storage side by side."""
    parts = np.array_split(np.arange(len(frames)), _THREADS)
    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = pool.map(lambda part: [frames.stamp(frame) for frame in part.tolist()], parts)
        return np.array(list(itertools.chain.from_iterable(stamps)), np.uint64)


def frame_covisibility(
    points: list[Float32[np.ndarray, "_ 3"]], poses: Float[np.ndarray, "a 4 4"]
) -> Float32[np.ndarray, "a a"]:
    """Co-visibility of some agents, from the points that each knows in its own frame."""
    clouds = [torch.from_numpy(np.ascontiguousarray(cloud)) for cloud in points]
    images = [range_images(cloud, torch.ones(len(cloud), dtype=torch.bool), MAX_COLUMNS) for cloud in clouds]
    shares = np.full((len(points), len(points)), np.nan, np.float32)
    for other, cloud in enumerate(points):
        some = cloud[:: max(1, len(cloud) // MAX_QUERIES)]
        for viewer in range(len(points)):
            if len(some) and len(points[viewer]):
                moved = transform_points(relative_pose(poses[viewer], poses[other]).astype(np.float32), some)
                shares[viewer, other] = is_seen(torch.from_numpy(moved), *images[viewer]).float().mean()
    mean = (shares + shares.T) / 2
    np.fill_diagonal(mean, 1.0)
    return mean


def known_points(
    metadata: AgentMetadata, depth: Float32[np.ndarray, "k h w"] | SeenPoints
) -> Float32[np.ndarray, "n 3"]:
    """Points that an agent's depth knows, in its frame; a regular subset of dense depth."""
    if isinstance(depth, SeenPoints):
        return depth.points
    rig = metadata.rig
    height, width = rig.image_size
    step = max(1, width // CAMERA_COLUMNS)
    points = []
    for matrix, agent_from_camera, camera_depth in zip(rig.intrinsics, rig.agent_from_camera, depth, strict=True):
        some = camera_depth[::step, ::step]
        rays = camera_rays(PinholeCamera(matrix, height, width))[::step, ::step][some > 0]
        points.append(transform_points(agent_from_camera, rays * some[some > 0][:, None]))
    return np.concatenate(points).astype(np.float32)


class _Frames(Dataset[tuple[Float32[np.ndarray, " p"], str | None]]):
    """Per frame, its pairs' co-visibility and what made it unreadable."""

    def __init__(self, index: SplitIndex, poses: PoseTable, depth_source: DepthSource, range_m: float) -> None:
        self.index, self.poses, self.depth_source, self.range_m = index, poses, depth_source, range_m

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, frame: int) -> tuple[Float32[np.ndarray, " p"], str | None]:
        hearing = self.poses.hearing(frame, self.range_m)
        values = np.full(hearing.shape, np.nan, np.float32)
        values[np.diag_indices(len(values))] = 1.0
        rows = np.flatnonzero(hearing.sum(axis=1) > 1)
        error = None
        if len(rows):
            try:
                values[np.ix_(rows, rows)] = frame_covisibility(
                    self._points(frame, rows), self.poses.poses(frame)[rows]
                )
            except FrameError as unreadable:
                error = str(unreadable)
        values[~hearing] = np.nan
        return values.reshape(-1), error

    def stamp(self, frame: int) -> int:
        """Of size and time of the files that decide a frame's co-visibility: metadata and depth; never 0."""
        ref = self.index.frame(frame)
        paths = [self.index.yaml_path(ref, agent) for agent in ref.agents]
        paths += itertools.chain.from_iterable(self.depth_source.paths(ref, agent) for agent in ref.agents)
        found = repr(fingerprints(paths)).encode()
        return int.from_bytes(hashlib.blake2b(found, digest_size=8).digest()) or 1

    def _points(self, frame: int, rows: np.ndarray) -> list[Float32[np.ndarray, "_ 3"]]:
        ref = self.index.frame(frame)
        agents = [ref.agents[row] for row in rows]
        metadata = {agent: read_agent(self.index.yaml_path(ref, agent), with_vehicles=False) for agent in agents}
        depths = self.depth_source.read(ref, metadata)
        return [known_points(metadata[agent], depths[agent]) for agent in agents]


def _measure(
    frames: _Frames, numbers: Int[np.ndarray, " n"], values: Float32[np.ndarray, " p"], num_workers: int
) -> Bool[np.ndarray, " n"]:
    """Measure some frames into ``values``, NaN where they cannot be read, with a warning; whether each can be."""
    from rich.progress import track

    loader = DataLoader(
        frames,
        batch_size=None,
        sampler=numbers.tolist(),
        num_workers=min(num_workers, len(numbers)),
        collate_fn=_as_it_is,
    )
    shown = track(
        loader,
        description=f"co-visibility in {frames.index.split}",
        total=len(numbers),
        transient=True,
        disable=len(numbers) < 200,
    )
    start, errors = frames.poses.pair_start, []
    for frame, (shares, error) in zip(numbers.tolist(), shown, strict=True):
        values[start[frame] : start[frame + 1]] = shares
        errors.append(error)
    unreadable = [error for error in errors if error is not None]
    if unreadable:
        log.warning(
            "co-visibility of %d of %d frames is unknown, because files cannot be read; the first: %s",
            len(unreadable),
            len(frames),
            unreadable[0],
        )
    return np.array([error is None for error in errors])


def _as_it_is(item: object) -> object:
    return item
