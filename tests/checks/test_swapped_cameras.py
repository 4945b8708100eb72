"""Exchanged cameras are told from what frames agree on; one frame may look exchanged and is not."""

from collections.abc import Iterable

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.judge import judge
from coopmap.checks.problems import FrameKey
from coopmap.config.data import DataConfig
from coopmap.data.depth_meaning import Meaning

ROOT, DEPTH_ROOT = "/data", "/depth"
SOUND = np.full((4, 4), 0.2) + 0.25 * np.eye(4)
EXCHANGED = SOUND[[0, 2, 1, 3]]


def agent(number: int, frame: int, match: np.ndarray, **more: object) -> AgentFacts:
    """Facts of an agent in a frame, whose edges fit depth by somewhat more or less than those of others."""
    key = FrameKey("train", "train", "street", str(number), f"{frame:06d}")
    noise = np.random.default_rng((number, frame)).normal(0, 0.02, (4, 4))
    path = f"{ROOT}/train/street/{number}/{frame:06d}.yaml"
    return AgentFacts(key, path, match=match + noise, **more)  # type: ignore[arg-type]


def told(facts: Iterable[AgentFacts]) -> set[tuple[str, str]]:
    """Kinds and paths of what is found."""
    config = DataConfig(root=ROOT, depth_root=DEPTH_ROOT)
    return {(problem.kind, problem.path) for problem in judge(config, list(facts), "", ()).problems}


def test_a_single_frame_that_looks_exchanged_is_no_problem() -> None:
    assert told([agent(number, 0, EXCHANGED if number == 7 else SOUND) for number in range(40)]) == set()


def test_one_frame_of_several_that_looks_exchanged_is_no_problem() -> None:
    faint = np.full((4, 4), 0.2) + 0.05 * np.eye(4)
    assert told(agent(1, frame, 2 * EXCHANGED if frame == 2 else faint) for frame in range(3)) == set()


def test_an_agent_whose_frames_agree_is_named() -> None:
    facts = [agent(number, frame, EXCHANGED if number == 2 else SOUND) for number in range(3) for frame in range(3)]
    assert told(facts) == {("cameras_swapped", f"/data/train/street/2/{frame:06d}.yaml") for frame in range(3)}


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
