"""Exchanged cameras are told from what frames agree on; one frame may look exchanged and is not."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from coopmap.checks.facts import AgentFacts
from coopmap.checks.judge import judge
from coopmap.checks.judgment import Judgment
from coopmap.checks.problems import FrameKey
from coopmap.config.data import DataConfig
from coopmap.data.depth_meaning import Meaning

ROOT, DEPTH_ROOT = "/data", "/depth"
SOUND = np.full((4, 4), 0.2) + 0.4 * np.eye(4)
EXCHANGED = SOUND[[0, 2, 1, 3]]
Facts = Callable[..., AgentFacts]


def agent(number: int, frame: int, match: np.ndarray, step_m: float = 6.0, **more: object) -> AgentFacts:
    """Facts of an agent in a frame, whose edges fit depth by somewhat more or less than those of others."""
    key = FrameKey("train", "train", "street", str(number), f"{frame:06d}")
    noise = np.random.default_rng((number, frame)).normal(0, 0.02, (4, 4))
    path = f"{ROOT}/train/street/{number}/{frame:06d}.yaml"
    pose = np.eye(4)
    pose[:3, 3] = 100.0 * number, 0.0, step_m * frame
    return AgentFacts(key, path, pose, match=match + noise, **more)  # type: ignore[arg-type]


def sweep_agent(number: int, frame: int, match: np.ndarray, step_m: float = 6.0, yaw: float = -0.3) -> AgentFacts:
    """The same, with edges at outlines of the sweep, stronger by ``yaw`` with the other sign."""
    facts = agent(number, frame, match, step_m)
    facts.match, facts.outlines_match = None, facts.match
    facts.flips = {"": 1.0, "pitch_sign": 0.9, "roll_sign": 0.9, "yaw_sign": 1.0 + yaw}
    return facts


def judged(facts: Iterable[AgentFacts]) -> Judgment:
    """What is found."""
    return judge(DataConfig(root=ROOT, depth_root=DEPTH_ROOT), list(facts), "", ())


def told(facts: Iterable[AgentFacts]) -> set[tuple[str, str]]:
    """Kinds and paths of what is found."""
    return {(problem.kind, problem.path) for problem in judged(facts).problems}


def test_a_single_frame_that_looks_exchanged_is_no_problem() -> None:
    assert told([agent(number, 0, EXCHANGED if number == 7 else SOUND) for number in range(40)]) == set()


def test_one_frame_of_several_that_looks_exchanged_is_no_problem() -> None:
    faint = np.full((4, 4), 0.2) + 0.05 * np.eye(4)
    assert told(agent(1, frame, 2 * EXCHANGED if frame == 2 else faint) for frame in range(3)) == set()


def test_an_agent_whose_frames_agree_is_named() -> None:
    facts = [agent(number, frame, EXCHANGED if number == 2 else SOUND) for number in range(3) for frame in range(3)]
    assert told(facts) == {("cameras_swapped", f"/data/train/street/2/{frame:06d}.yaml") for frame in range(3)}


@pytest.mark.parametrize("facts", [agent, sweep_agent])
@pytest.mark.parametrize(("step_m", "is_told"), [(0.0, False), (1.0, False), (6.0, True)])
def test_what_a_standing_car_repeats_is_no_evidence(facts: Facts, step_m: float, is_told: bool) -> None:
    frames = [facts(number, frame, SOUND) for number in range(2) for frame in range(4)]
    frames += [facts(2, frame, EXCHANGED, step_m) for frame in range(4)]
    paths = [f"/data/train/street/2/{frame:06d}.yaml" for frame in range(4)] if is_told else []
    judgment = judged(frames)
    assert [(problem.kind, problem.path) for problem in judgment.problems] == [
        ("cameras_swapped", path) for path in paths
    ]
    silent = "nothing could be told of 1 of 3 agents by themselves: they were measured at fewer than 3 places 5 m apart"
    assert any(silent in note for note in judgment.notes.values()) == (not is_told)


@pytest.mark.parametrize(("step_m", "is_told"), [(0.0, False), (6.0, True)])
def test_a_sign_that_fits_a_standing_car_better_is_no_evidence(step_m: float, is_told: bool) -> None:
    frames = [sweep_agent(1, frame, SOUND, step_m, yaw=0.3 + 0.01 * frame) for frame in range(4)]
    paths = [f"/data/train/street/1/{frame:06d}.yaml" for frame in range(4)] if is_told else []
    assert told(frames) == {("yaw_sign", path) for path in paths}


def test_what_standing_cars_of_a_whole_split_show_is_told() -> None:
    frames = [sweep_agent(number, frame, EXCHANGED, step_m=0) for number in range(20) for frame in range(3)]
    assert told(frames) == {("cameras_swapped", "/data/train")}
    assert told(frames[:57]) == set()  # of one car less


def test_a_frame_in_which_a_camera_sees_too_little_is_no_evidence() -> None:
    blind = EXCHANGED + np.where(np.arange(4) == 3, np.nan, 0.0)
    assert told(sweep_agent(1, frame, blind, yaw=0.3 + 0.01 * frame) for frame in range(4)) == set()


def test_agents_of_single_frames_are_told_as_a_split() -> None:
    single = [agent(number, 0, EXCHANGED) for number in range(10, 16)]
    assert told(single) == {("cameras_swapped", "/data/train")}
    sound = [agent(number, frame, SOUND) for number in range(3) for frame in range(3)]
    assert told(single + sound) == {("cameras_swapped", "/data/train")}


def test_the_lidar_tells_exchanged_depth_in_a_single_frame() -> None:
    meaning = Meaning("z", factor=1.0, share=0.4)
    facts = [agent(number, 0, SOUND) for number in range(6)]
    facts.append(agent(6, 0, EXCHANGED, scale=meaning, swapped_share=0.95))
    assert told(facts) == {("depth_swapped", "/depth/train/street/6/000000")}
