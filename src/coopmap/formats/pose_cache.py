"""Poses for detectors of cooperative perception (OpenCOOD and what grew from it: CoAlign, HEAL).

Those keep what a first stage found in a JSON file of samples, by the sample's number in their data set as text, each
with a ``cav_id_list`` and a ``lidar_pose_clean_np``. This file is like that, with a ``lidar_pose`` per car: ``[x, y, z,
roll, yaw, pitch]`` in CARLA's axes, meters and degrees, as their ``x_to_world`` takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coopmap.geometry.carla import carla_from_pose, pose_ue_from_cv
from coopmap.report.files import write_json

LEFT_OUT = ("2021_08_20_21_10_24", "000265")
"""Scenario and frame of OPV2V's test split that CoAlign's and HEAL's data sets do not count (OpenCOOD's do)."""


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """The cars of a frame.

    Attributes:
        scenario, frame: which.
        agents: ids, the reference first.
        pose: ``T_world_agent`` to use.
        true_pose: the same, as it was.
        confidence: of each pose, 0 to 1; ``None`` where there is none.
    """

    scenario: str
    frame: str
    agents: tuple[str, ...]
    pose: Float[np.ndarray, "n 4 4"]
    true_pose: Float[np.ndarray, "n 4 4"]
    confidence: tuple[float | None, ...]


def lidar_poses(pose: Float[np.ndarray, "n 4 4"]) -> list[list[float]]:
    """``[x, y, z, roll, yaw, pitch]`` in CARLA's axes, degrees, of ``T_world_agent`` in ours."""
    return carla_from_pose(pose_ue_from_cv(np.asarray(pose, np.float64))).tolist()


def write_pose_cache(file: Path, frames: Sequence[PosedFrame], split_folder: Path) -> None:
    """Write the frames of one split.

    Args:
        file: JSON.
        frames: of the split.
        split_folder: holds its scenarios; the numbers of the samples follow from it.
    """
    numbers = sample_numbers(split_folder)
    write_json(
        {
            str(numbers.get((each.scenario, each.frame), f"{each.scenario}/{each.frame}")): _entry(each)
            for each in frames
        },
        file,
    )


def _entry(frame: PosedFrame) -> dict[str, Any]:
    return {
        "scenario": frame.scenario,
        "timestamp": frame.frame,
        "reference": frame.agents[0],
        "cav_id_list": list(frame.agents),
        "lidar_pose": lidar_poses(frame.pose),
        "lidar_pose_clean_np": lidar_poses(frame.true_pose),
        "confidence": list(frame.confidence),
    }


def sample_numbers(split_folder: Path) -> dict[tuple[str, str], int]:
    """Number of each (scenario, frame) in HEAL's data sets.

    Those count the frames of the first car of each scenario; scenarios, cars and frames are sorted as text.
    """
    numbers: dict[tuple[str, str], int] = {}
    scenarios = sorted(path for path in split_folder.iterdir() if path.is_dir()) if split_folder.is_dir() else []
    for scenario in scenarios:
        cars = sorted(path for path in scenario.iterdir() if path.is_dir() and path.name.isdecimal())
        frames = sorted(path.stem for path in cars[0].glob("*.yaml") if path.stem.isdecimal()) if cars else []
        frames = [frame for frame in frames if (scenario.name, frame) != LEFT_OUT]
        numbers |= {(scenario.name, frame): number for number, frame in enumerate(frames, len(numbers))}
    return numbers
