"""Whether validation measures what was trained on: the same scenario, by name or by where its agents were."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from coopmap.data.opv2v import SplitIndex
from coopmap.data.pose_table import PoseTable

SAME_PLACES = 0.5
"""Share of a scenario's poses that another split has, to the last bit, from which on it is a copy."""


def shared_scenarios(
    train: SplitIndex, train_poses: PoseTable, held_out: SplitIndex, held_out_poses: PoseTable
) -> list[str]:
    """Scenarios of a held-out split that the training split has too, under the same name or another."""
    names = [name.decode() for name in held_out.scenarios]
    known = {name.decode() for name in train.scenarios[np.unique(train.frame_scenario)]}
    is_copied = np.isin(_as_numbers(held_out_poses), _as_numbers(train_poses)) & _is_readable(held_out_poses)
    scenario = np.repeat(held_out.frame_scenario, held_out.num_agents)
    return [
        names[number]
        for number in np.unique(held_out.frame_scenario)
        if names[number] in known or is_copied[scenario == number].mean() > SAME_PLACES
    ]


def _is_readable(poses: PoseTable) -> np.ndarray:
    return np.isfinite(poses.cords).all(axis=1)


def _as_numbers(poses: PoseTable) -> Int[np.ndarray, " n"]:
    """A number for each pose that differs, in all likelihood, where poses do."""
    words = np.ascontiguousarray(poses.cords).view(np.uint64)
    mixed = np.zeros(len(words), np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed.view(np.int64)
