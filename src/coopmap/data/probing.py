"""Faults of a whole car or a whole split, found before a run begins by reading a few frames of each car."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from coopmap.config.checks import ConfigError
from coopmap.data.absent_files import frames_without_files
from coopmap.data.dataset import FrameDataset
from coopmap.data.from_files import ViewsFromFiles
from coopmap.data.opv2v import FrameError, SplitIndex
from coopmap.data.pose_table import PoseTable

log = logging.getLogger(__name__)

_THREADS = 8

MOST_CARS = 256
"""Cars that are probed at most; OPV2V has fewer. Among thousands of streets of one tick, a fault costs a frame."""


def unreadable_cars(dataset: FrameDataset) -> Bool[np.ndarray, " n"]:
    """Rows of the index whose car, in its scenario, could be read in none of its first, middle and last frame.

    With them the rows without an image or a depth file, of cars that lack one in any of these frames. Of more than
    :data:`MOST_CARS` cars those with the most frames are probed, evenly spread over those with as many.

    Raises:
        ConfigError: if these are most of the probed cars: a fault of the data as a whole.
    """
    index = dataset.index
    frame_of = np.repeat(np.arange(len(index)), index.num_agents)
    car_of = index.frame_scenario[frame_of].astype(np.int64) * len(index.agents) + index.frame_agents
    readable = np.isfinite(dataset.poses.cords).all(axis=1)
    cars = _probed(car_of[readable])

    def fault(car: int) -> FrameError | None:
        """What is wrong with the first frame of a car; ``None`` if one of three can be read."""
        rows = np.flatnonzero((car_of == car) & readable)
        error = None
        for row in dict.fromkeys(rows[[0, len(rows) // 2, -1]].tolist()):
            frame = int(frame_of[row])
            agent = index.agents[index.frame_agents[row]].decode()
            try:
                dataset.ready.read(frame, index.frame(frame), [agent])
                return None
            except FrameError as unreadable:
                error = error or unreadable
        return error

    with ThreadPoolExecutor(_THREADS) as pool:
        faults = dict(zip(cars.tolist(), pool.map(fault, cars.tolist()), strict=True))
    broken = {car: error for car, error in faults.items() if error is not None}
    if 2 * len(broken) > len(cars):
        raise ConfigError(
            f"split {index.split!r}: {len(broken)} of {len(cars)} cars cannot be read, for instance "
            f"{next(iter(broken.values()))}"
        )
    for car, error in broken.items():
        scenario, agent = divmod(car, len(index.agents))
        log.warning(
            "%s: car %s of %s can never be read, its frames go on without it: %s",
            index.split, index.agents[agent].decode(), index.scenarios[scenario].decode(), error,
        )  # fmt: skip
    whole = [car for car in cars.tolist() if car not in broken]
    return np.isin(car_of, list(broken)) | _rows_without_files(dataset, car_of, readable, whole)


def _rows_without_files(
    dataset: FrameDataset, car_of: Int[np.ndarray, " n"], readable: Bool[np.ndarray, " n"], cars: list[int]
) -> Bool[np.ndarray, " n"]:
    """Rows of some cars that lack a file from some frame on, or up to one; warned of car by car."""
    index, without = dataset.index, np.zeros(len(car_of), bool)
    if not isinstance(dataset.ready, ViewsFromFiles):  # a cache needs no files
        return without
    frame_of = np.repeat(np.arange(len(index)), index.num_agents)

    def look(car: int) -> tuple[Int[np.ndarray, " m"], Path | None]:
        agent = index.agents[car % len(index.agents)].decode()
        return frames_without_files(index, dataset.depth_source, agent, frame_of[(car_of == car) & readable])

    with ThreadPoolExecutor(_THREADS) as pool:
        for car, (frames, path) in zip(cars, pool.map(look, cars), strict=True):
            if path is not None:
                rows = car_of == car
                without |= rows & np.isin(frame_of, frames)
                log.warning(
                    "%s: car %s of %s lacks files in %d of its %d frames, which go on without it, the first: %s",
                    index.split, index.agents[car % len(index.agents)].decode(),
                    index.scenarios[car // len(index.agents)].decode(), len(frames), rows.sum(), path,
                )  # fmt: skip
    return without


def _probed(car_of: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " cars"]:
    """The cars of these rows that are worth a look."""
    cars, num_frames = np.unique(car_of, return_counts=True)
    if len(cars) <= MOST_CARS:
        return cars
    least = np.sort(num_frames)[-MOST_CARS]
    surely, perhaps = cars[num_frames > least], cars[num_frames == least]
    spread = np.linspace(0, len(perhaps) - 1, MOST_CARS - len(surely)).round().astype(np.intp)
    return np.sort(np.concatenate([surely, perhaps[spread]]))


def why_no_frame(index: SplitIndex, poses: PoseTable, min_agents: int) -> str:
    """What else there is to say of a split of which no frame can be used; empty if it is a matter of distance."""
    if poses.skipped:
        return f"; {len(poses.skipped)} metadata files cannot be read, for instance {poses.skipped[0]}"
    most = int(index.num_agents.max())
    if most >= min_agents:
        return ""
    if most > 1:
        return f"; frames have at most {most} agents, fewer than data.min_agents={min_agents} asks for"
    for scenario, name in enumerate(index.scenarios):
        frames = np.flatnonzero(index.frame_scenario == scenario)
        first = {index.frame(int(frame)).agents[0]: index.frame(int(frame)).frame for frame in frames[::-1]}
        if len(first) > 1:
            (one, tick), (other, other_tick) = list(first.items())[:2]
            return (
                f"; frames never coincide: in {name.decode()} car {one} has {tick} and car {other} has {other_tick}; "
                "files of one tick need one name"
            )
    return "; each scenario has one car only"
