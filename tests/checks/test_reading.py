"""Metadata that cannot be used are named by kind, whatever else a file holds."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coopmap.checks.problems import Problem
from coopmap.checks.reading import AgentReader
from coopmap.data.opv2v import SplitIndex
from coopmap.geometry import pose_from_carla

TAGGED = "extra: !!python/object/apply:os.system [x]\n"


def first_file(folder: Path) -> Path:
    index = SplitIndex.build(folder / "town", "train")
    ref = index.frame(0)
    return index.yaml_path(ref, ref.agents[0])


def read_first(folder: Path) -> AgentReader:
    """The first agent in the first frame."""
    index = SplitIndex.build(folder / "town", "train")
    ref = index.frame(0)
    reader = AgentReader(index, None, ref, ref.agents[0])
    reader.read(whole=False)
    return reader


def problems(folder: Path) -> list[Problem]:
    return read_first(folder).problems


def edit(path: Path, change: Callable[[dict[str, Any]], object], more: str = "") -> None:
    """Put a changed file in the place of a link."""
    content = yaml.safe_load(path.read_bytes())
    change(content)
    path.unlink()
    path.write_text(yaml.safe_dump(content) + more)


def shift_extrinsic(content: dict[str, Any]) -> None:
    content["camera2"]["extrinsic"][0][3] += 0.1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (shift_extrinsic, "extrinsic"),
        (lambda content: content.pop("lidar_pose"), "incomplete_metadata"),
        (lambda content: content["lidar_pose"].__setitem__(0, math.nan), "pose_not_finite"),
    ],
)
def test_a_tag_that_nobody_asks_for_changes_no_diagnosis(
    change: Callable[[dict[str, Any]], object], kind: str, copy: Path
) -> None:
    edit(first_file(copy), change, TAGGED)
    assert [problem.kind for problem in problems(copy)] == [kind]


def test_a_link_to_nothing_is_named_with_its_target(copy: Path) -> None:
    path = first_file(copy)
    path.unlink()
    path.symlink_to(copy / "nowhere.yaml")
    (problem,) = problems(copy)
    assert (problem.kind, problem.path) == ("unreadable_metadata", str(path))
    assert problem.detail == f"is a link to {copy / 'nowhere.yaml'}, which is not there"


def test_the_extrinsic_of_a_pose_given_as_a_matrix_is_diagnosed_too(copy: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["lidar_pose"] = pose_from_carla(content["lidar_pose"]).tolist()
        shift_extrinsic(content)

    edit(first_file(copy), change)
    assert [problem.kind for problem in problems(copy)] == ["extrinsic"]


def test_an_error_of_gps_that_is_not_told_is_unknown(copy: Path) -> None:
    assert read_first(copy).facts.gps_error_m is not None
    edit(first_file(copy), lambda content: content.pop("predicted_ego_pos"))
    reader = read_first(copy)
    assert (reader.problems, reader.facts.gps_error_m, reader.facts.gps_error_deg) == ([], None, None)
