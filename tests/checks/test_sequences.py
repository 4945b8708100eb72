"""Steps, repetitions and gaps in time."""

import math

import numpy as np
import pytest

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey
from coopmap.checks.sequences import Sequences

TICKS = 10
"""Half a second between frames."""


def facts(step_m: float, *speeds: float, content: str = "") -> list[AgentFacts]:
    """An agent that moves by so many meters from frame to frame, with the speeds that its files tell."""
    found = []
    for number, speed in enumerate(speeds):
        frame = f"{TICKS * number:06d}"
        pose = np.eye(4)
        pose[2, 3] = step_m * number
        key = FrameKey("train", "train", "street", "1", frame)
        found.append(AgentFacts(key, f"/data/train/street/1/{frame}.yaml", pose, speed=speed, content=content))
    return found


@pytest.mark.parametrize(
    ("speeds", "jumps"),
    [
        ((math.nan, math.nan), False),
        ((5.0, 5.0), True),
        ((math.nan, 5.0), True),
        ((5.0, math.nan), True),
        ((math.nan, 20.0), False),
    ],
)
def test_a_step_is_judged_by_the_speed_that_is_known(speeds: tuple[float, ...], jumps: bool) -> None:
    sequences = Sequences(facts(10.0, *speeds))
    assert [problem.kind for problem in sequences.problems()] == ["pose_jump"] * jumps
    silent = sum(map(math.isnan, speeds))
    note = f"{silent} of 2 files lack ego_speed: steps between two of them were not judged"
    assert sequences.notes() == ({"steps against speed": note} if silent else {})


@pytest.mark.parametrize(("step_m", "is_told"), [(0.0, False), (0.2, False), (5.0, True)])
def test_without_a_speed_a_car_stands_if_its_poses_say_so(step_m: float, is_told: bool) -> None:
    found = Sequences(facts(step_m, math.nan, math.nan, content="same")).problems()
    assert [problem.kind for problem in found] == ["duplicate_frame"] * is_told
