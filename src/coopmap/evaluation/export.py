"""The predicted poses of an evaluation in the formats of other tools.

Poses are absolute, in the scenario's world: each is the *true* world pose of its frame's first agent times the
predicted pose relative to that agent. What is wrong in them is the prediction alone; the first agent itself is never
wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from coopmap.data.opv2v import FrameRef, read_agent
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.records import SampleRecord, write_table
from coopmap.formats.colmap import PosedImage, write_colmap
from coopmap.formats.pose_cache import PosedFrame, write_pose_cache
from coopmap.formats.rig import images_of_rig
from coopmap.formats.trajectories import TICK_S, write_kitti, write_tum
from coopmap.metrics.trajectory import absolute_errors
from coopmap.report.files import write_text

log = logging.getLogger(__name__)

FRAME = (
    "world: the scenario's, in OpenCV axes (x right, y down, z forward; z, x, -y of these are CARLA's x, y, z), meters",
    "poses: T_world_agent of the agents' LiDARs; the true world pose of each frame's first agent (the reference) times "
    "the predicted pose relative to it, so the reference itself is where it truly was",
)
"""What a reader of the files must know."""


@dataclass(frozen=True, eq=False)
class Track:
    """An agent over the frames of a scenario, ascending.

    Attributes:
        scenario, agent: which.
        numbers: of the frames.
        references: the first agent of each frame.
        pose, true_pose: ``T_world_agent``.
    """

    scenario: str
    agent: str
    numbers: tuple[int, ...]
    references: tuple[str, ...]
    pose: Float[np.ndarray, "n 4 4"]
    true_pose: Float[np.ndarray, "n 4 4"]

    @property
    def times(self) -> Float[np.ndarray, " n"]:
        """Seconds."""
        return np.array(self.numbers) * TICK_S

    def row(self) -> dict[str, str | int | float]:
        """Its row in ``trajectories.csv``."""
        place, true = (torch.from_numpy(pose[None, :, :3, 3].copy()) for pose in (self.pose, self.true_pose))
        errors = {name: float(value) for name, value in absolute_errors(place, true).items()}
        return {"scenario": self.scenario, "agent": self.agent, "frames": len(self.numbers), **errors}


def write_exports(
    folder: Path, records: Sequence[SampleRecord], data: EvaluationData, asked: Sequence[str]
) -> list[Path]:
    """Write the formats that were asked for, each into its own folder below ``folder``."""
    if not asked:
        return []
    frames = list(posed_frames(records))
    written = [folder / name for name in dict.fromkeys(asked)]
    if {"tum", "kitti"}.intersection(asked):
        tracks = tracks_of(frames)
        write_table(folder / "trajectories.csv", [track.row() for track in tracks])
        for name in ("tum", "kitti"):
            if name in asked:
                _write_tracks(folder / name, tracks, name)
    if "colmap" in asked:
        _write_models(folder / "colmap", frames, data)
    if "heal" in asked:
        _write_caches(folder / "heal", frames, data)
    return written


def posed_frames(records: Sequence[SampleRecord]) -> Iterator[PosedFrame]:
    """The agents of each frame in the world.

    A frame that was measured with several choices of agents is taken once, the first; one without a finite pose of
    every agent is left out. The log says so.
    """
    seen: set[tuple[str, str]] = set()
    repeated, unknown = 0, 0
    for record in records:
        key = (record.meta.scenario, record.meta.frame)
        if key in seen:
            repeated += 1
        elif record.world is None or not record.poses["model"].isfinite().all():
            unknown += 1
        else:
            seen.add(key)
            world = record.world.double()
            pose, true = (world @ record.poses[name].double() for name in ("model", "true"))
            yield PosedFrame(*key, record.agents, pose.numpy(), true.numpy(), confidences(record))
    for number, why in ((repeated, "their frame was measured before"), (unknown, "a pose is not finite")):
        if number:
            log.warning("export leaves out %d samples: %s", number, why)


def confidences(record: SampleRecord) -> tuple[float | None, ...]:
    """What the model says of its answer for each agent and the reference; ``None`` if it does not say."""
    said: dict[int, float] = {}
    for i, j, value in zip(
        record.pairs["i"], record.pairs["j"], record.pairs.get("confidence", [np.nan] * len(record.pairs["i"])),
        strict=True,
    ):  # fmt: skip
        if i == 0 and np.isfinite(value):
            said[int(j)] = value
    return (1.0, *(said.get(number) for number in range(1, len(record.agents))))


def tracks_of(frames: Sequence[PosedFrame]) -> list[Track]:
    """A track per scenario and agent."""
    places: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for number, frame in enumerate(frames):
        for row, agent in enumerate(frame.agents):
            places.setdefault((frame.scenario, agent), []).append((int(frame.frame), number, row))
    tracks = []
    for (scenario, agent), found in sorted(places.items()):
        found.sort()
        tracks.append(
            Track(
                scenario,
                agent,
                tuple(time for time, _, _ in found),
                tuple(frames[number].agents[0] for _, number, _ in found),
                np.stack([frames[number].pose[row] for _, number, row in found]),
                np.stack([frames[number].true_pose[row] for _, number, row in found]),
            )
        )
    return tracks


def _write_tracks(folder: Path, tracks: Sequence[Track], kind: str) -> None:
    """``SCENARIO/AGENT.txt`` and ``AGENT_true.txt``."""
    for track in tracks:
        place = folder / track.scenario
        for suffix, pose in (("", track.pose), ("_true", track.true_pose)):
            file = place / f"{track.agent}{suffix}.txt"
            if kind == "kitti":
                write_kitti(file, pose)
            else:
                what = "predicted" if not suffix else "true"
                references = f"reference agents: {' '.join(dict.fromkeys(track.references))}"
                title = f"{what} poses of agent {track.agent} in {track.scenario}"
                write_tum(file, track.times, pose, [title, *FRAME, references])
        if kind == "kitti":
            write_text("".join(f"{time:.6e}\n" for time in track.times), place / f"{track.agent}_times.txt")
    if kind == "kitti":
        _write_notes(folder, "AGENT.txt: predicted; AGENT_true.txt: true; AGENT_times.txt: seconds")


def _write_models(folder: Path, frames: Sequence[PosedFrame], data: EvaluationData) -> None:
    """A COLMAP model of the cameras of each scenario; its folder of images is the scenario's."""
    images: dict[str, list[PosedImage]] = {}
    for frame in frames:
        index = data.dataset(data.split_of(frame.scenario)).index
        ref = FrameRef(index.split, frame.scenario, frame.frame, frame.agents)
        for agent, pose in zip(frame.agents, frame.pose, strict=True):
            rig = read_agent(index.yaml_path(ref, agent), with_vehicles=False).rig
            images.setdefault(frame.scenario, []).extend(images_of_rig(rig, pose, index.image_names(ref, agent)))
    for scenario, of_scenario in images.items():
        write_colmap(folder / scenario, of_scenario, notes=[f"predicted poses of the cameras in {scenario}", *FRAME])


def _write_caches(folder: Path, frames: Sequence[PosedFrame], data: EvaluationData) -> None:
    """A pose cache per split."""
    by_split: dict[str, list[PosedFrame]] = {}
    for frame in frames:
        by_split.setdefault(data.split_of(frame.scenario), []).append(frame)
    for split, of_split in by_split.items():
        index = data.dataset(split).index
        write_pose_cache(folder / f"{index.folder}.json", of_split, index.root / index.folder)
    _write_notes(
        folder,
        "lidar_pose, lidar_pose_clean_np: predicted and true [x, y, z, roll, yaw, pitch] in CARLA's axes, degrees",
        "confidence: predicted probability that the pose relative to the reference is within 2 m and 5 degrees; 1 for "
        "the reference; null where the model does not say",
        "keys: number of the sample in HEAL's data set of the split",
    )


def _write_notes(folder: Path, *more: str) -> None:
    write_text("\n".join((*FRAME, *more)) + "\n", folder / "README.txt")
