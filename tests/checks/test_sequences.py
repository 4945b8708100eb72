"""Steps, repetitions and gaps in time."""

import math
from pathlib import Path

import numpy as np
import pytest

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey
from coopmap.checks.sequences import Sequences, missing_agents, passing_agents, time_gaps
from coopmap.data.opv2v import SplitIndex

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


def index_of(root: Path, frames_of: dict[str, str]) -> SplitIndex:
    """A street with some frames, by their first digit, of each agent."""
    for agent, frames in frames_of.items():
        (root / "train" / "street" / agent).mkdir(parents=True)
        for frame in frames:
            (root / "train" / "street" / agent / f"0000{frame}0.yaml").touch()
    return SplitIndex.build(root, "train")


def test_agents_that_enter_late_and_leave_early_are_told_and_no_problem(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"1": "12345", "2": "234", "3": "12345"})
    assert list(missing_agents(index, ())) == []
    assert list(time_gaps([index], ())) == []
    told = "1 of 3 agents enter late or leave early, as 2 of street is there from 000020 to 000040"
    assert passing_agents(index) == told
    assert passing_agents(index_of(tmp_path / "all", {"1": "12", "2": "12"})) == ""


def test_a_hole_is_a_problem_until_it_is_listed(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"1": "12345", "2": "235"})
    (hole,) = missing_agents(index, ())
    assert hole.path == str(tmp_path / "train" / "street" / "2" / "000040.yaml")
    entries = [key.entry for key in hole.keys]
    assert entries == ["train/street/2/000040"]
    assert list(missing_agents(index, entries)) == []


def test_a_gap_in_time_is_a_problem_until_it_is_listed(tmp_path: Path) -> None:
    index = index_of(tmp_path, {"1": "123679", "2": "123679"})
    (gaps,) = time_gaps([index], ())
    assert gaps.detail == "frame 000060 comes 30 ticks after the last, not 10 (and 1 more like it)"
    entries = [key.entry for key in gaps.keys]
    assert entries == ["train/street/1/000040", "train/street/1/000080"]
    assert list(time_gaps([index], entries)) == []
    (gap,) = time_gaps([index], [entries[0], "train/street/1/000070", "train/other/1/000080"])
    assert gap.detail == "frame 000090 comes 20 ticks after the last, not 10"
