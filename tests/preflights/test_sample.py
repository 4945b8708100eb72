"""What of a sample of the data ends a run."""

import pytest

from coopmap.checks.problems import FrameKey, Problem
from coopmap.preflights.sample import fatal_problems

KEYS = [FrameKey("train", "train", "street", str(number), "000060") for number in range(6)]


def problem(kind: str, *keys: FrameKey) -> Problem:
    return Problem(kind, "path", "detail", keys)


@pytest.mark.parametrize(("number", "ends"), [(1, False), (3, False), (4, True)])
def test_what_statistics_tell_ends_a_run_where_most_agents_have_it(number: int, ends: bool) -> None:
    problems = [problem("cameras_swapped", key) for key in KEYS[:number]]
    assert fatal_problems(problems, {"cameras_swapped": KEYS}) == (problems if ends else [])


def test_what_a_split_has_as_a_whole_ends_a_run() -> None:
    problems = [problem("cameras_swapped")]
    assert fatal_problems(problems, {"cameras_swapped": KEYS}) == problems


def test_what_one_file_says_outright_ends_a_run_and_damage_does_not() -> None:
    wrong = problem("extrinsic", KEYS[0])
    assert fatal_problems([wrong, problem("unreadable_image", KEYS[1])], {}) == [wrong]
