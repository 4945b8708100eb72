from typing import Any

import pytest

from coopmap.comparison.caveats import caveats
from coopmap.runs.groups import group_runs
from coopmap.runs.reader import Run, read_run

from .conftest import MakeRun, validation

ROWS = [validation(0, 0.0, 9.0, 20.0), validation(10, 4.0, 3.0, 8.0)]
FACTS = {"parameters": 7}


def warnings_of(runs: list[Run], by: tuple[str, ...] = ()) -> list[str]:
    return caveats(group_runs(runs, by), [], by)


def four(make_run: MakeRun, last: dict[str, Any] | None = None, rows: Any = ROWS) -> list[Run]:
    """Two experiments of two seeds; ``last`` are options of the fourth run."""
    runs = [
        make_run("a", 0, ROWS, facts=FACTS),
        make_run("a", 1, ROWS, facts=FACTS),
        make_run("b", 0, ROWS, facts=FACTS),
    ]
    return [read_run(run) for run in [*runs, make_run("b", 1, rows, **({"facts": FACTS} | (last or {})))]]


def test_nothing_to_say_about_a_fair_comparison(make_run: MakeRun) -> None:
    assert warnings_of(four(make_run)) == []


def test_unfinished_and_shorter_runs(make_run: MakeRun) -> None:
    rows = [*ROWS[:1], validation(5, 2.0, 4.0, 9.0)]
    assert warnings_of(four(make_run, {"finished": False}, rows)) == [
        "b/seed1 is unfinished: metrics up to step 5",
        "last validated step differs: 10 in 3 runs; 5 in b/seed1",
    ]


def test_runs_without_figures(make_run: MakeRun) -> None:
    groups = group_runs(four(make_run))
    assert caveats(groups, ["b/seed2"]) == ["b/seed2 has no validation and is left out"]


def test_another_dataset(make_run: MakeRun) -> None:
    found = warnings_of(four(make_run, {"settings": {"data": {"root": "/other"}}}))
    assert found[0] == "dataset (data.root) differs: /data in 3 runs; /other in b/seed1"


def test_what_only_one_run_has_recorded_is_said_once(make_run: MakeRun) -> None:
    """Synthetic data are one difference from data that are not, and what an older version did not record is no None."""
    town = {"towns": "per_scenario", "seed": 3, "scenarios": {"train": 3}}
    runs = four(make_run, {"settings": {"data": {"root": "/data", "town": town, "max_agents": 3}}})
    runs[0] = read_run(make_run("a", 0, ROWS, "null", facts=FACTS, settings={"data": {"root": "/data", "town": None}}))
    assert warnings_of(runs)[:2] == [
        "dataset (data.max_agents) differs: not recorded in 3 runs; 3 in b/seed1",
        "dataset (data.town) differs: not recorded in a/seed1, b/seed0; null in a/null; set in b/seed1",
    ]
    assert [group.label for group in group_runs(runs)] == [
        "a",
        "b (data.max_agents not recorded, data.town not recorded)",
        "b (data.max_agents=3, data.town set)",
    ]


def test_two_sets_of_streets_differ_in_their_keys(make_run: MakeRun) -> None:
    towns = [{"seed": 1, "rigs": "opv2v"}, {"seed": 2, "rigs": "opv2v"}, None]
    runs = [
        read_run(make_run("a", number, ROWS, facts=FACTS, settings={"data": {"root": "/data", "town": town}}))
        for number, town in enumerate(towns)
    ]
    assert warnings_of(runs)[:2] == [
        "dataset (data.town) differs: set in a/seed0, a/seed1; null in a/seed2",
        "dataset (data.town.seed) differs: 1 in a/seed0; 2 in a/seed1; not recorded in a/seed2",
    ]


def test_another_revision_and_uncommitted_changes(make_run: MakeRun) -> None:
    found = warnings_of(four(make_run, {"start": {"git_revision": "fedcba9876543210", "git_dirty": True}}))
    assert found == ["code differs: revision 01234567 in 3 runs; revision fedcba98 with uncommitted changes in b/seed1"]


def test_another_machine(make_run: MakeRun) -> None:
    found = warnings_of(four(make_run, {"start": {"host": "z"}}))
    assert found == ["host differs: a in 3 runs; z in b/seed1; step and wall times are not comparable"]


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("loss.weights.pose_trans", {"weights": {"pose_trans": 1.0}}, {"weights": {"pose_trans": 3.0}}),
        ("loss.pairs", {"pairs": "all"}, {"pairs": "between_agents"}),
        ("loss.convert_to_view0", {"convert_to_view0": False}, {"convert_to_view0": True}),
    ],
)
def test_another_objective(make_run: MakeRun, key: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    runs = [
        read_run(make_run(name, 0, ROWS, facts=FACTS, settings={"loss": loss}))
        for name, loss in (("a", one), ("b", other))
    ]
    expected = f"objective differs ({key}): pose_trans_avg is not comparable, meters and degrees are"
    assert expected in warnings_of(runs)


def test_seeds_that_differ_repeat_or_are_alone(make_run: MakeRun) -> None:
    first, again = make_run("a", 0, ROWS, facts=FACTS), make_run("a", 0, ROWS, name="again", facts=FACTS)
    other = make_run("b", 1, ROWS, facts=FACTS)
    assert warnings_of([read_run(run) for run in (first, again, other)]) == [
        "a: several runs of seed 0; these are not independent repetitions",
        "seeds differ: 0 (a); 1 (b)",
    ]
    assert warnings_of([read_run(first)]) == ["one run each: whether a difference is chance cannot be told"]


def test_pooled_settings(make_run: MakeRun) -> None:
    runs = [read_run(make_run("a", seed, ROWS, facts=FACTS, settings={"optim": {"lr": seed}})) for seed in (0, 1)]
    assert warnings_of(runs, ("experiment",)) == ["a: its runs also differ in optim.lr"]


def test_missing_records(make_run: MakeRun) -> None:
    rows = [{"step": 10, "val/pose_trans_avg": 3.0}]
    assert warnings_of(four(make_run, {"facts": None}, rows)) == [
        "b/seed1: no validation before the first step (callbacks.validate_at_start)",
        "b/seed1: no model.json, so that parameters, tokens, FLOPs and memory are not known",
        "b/seed1: no wall time for the validations",
    ]


SOMETHING_ELSE = (
    "what a view shows differs: panoramas in 3 runs; cameras side by side in b/seed1; measures per pixel are of other "
    "pixels, those of poses compare"
)


@pytest.mark.parametrize(("layout", "expected"), [("grouped", []), ("mosaic", [SOMETHING_ELSE])])
def test_views_that_show_something_else(make_run: MakeRun, layout: str, expected: list[str]) -> None:
    """Fusing cameras inside the model keeps the panorama's pixels; cameras side by side do not."""
    found = warnings_of(four(make_run, {"settings": {"data": {"root": "/data", "layout": layout}}}))
    assert [line for line in found if line.startswith("what a view shows")] == expected
