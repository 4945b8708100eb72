import pytest

from coopmap.config import ConfigError
from coopmap.runs.groups import differing_keys, group_runs
from coopmap.runs.reader import read_run

from .conftest import MakeRun, validation

ROWS = [validation(10, 4, 3.0, 8.0)]


def test_seeds_of_one_configuration_make_a_group(make_run: MakeRun) -> None:
    runs = [
        read_run(make_run("fusion_mean", 1, ROWS)),
        read_run(make_run("fusion_mean", 0, ROWS)),
        read_run(make_run("fusion_mean", 2, ROWS, settings={"optim": {"lr": 0.2}})),
        read_run(make_run("cyl_posefix", 0, ROWS)),
    ]
    groups = group_runs(runs)
    labels = {group.label: [run.seed for run in group.runs] for group in groups}
    assert labels == {
        "cyl_posefix": [0],
        "fusion_mean (optim.lr=0.1)": [0, 1],
        "fusion_mean (optim.lr=0.2)": [2],
    }


def test_settings_that_do_not_matter_do_not_part_runs(make_run: MakeRun) -> None:
    runs = [
        read_run(
            make_run("a", 0, ROWS, settings={"logger": {"mode": "csv"}, "data": {"root": "/d", "num_workers": 0}})
        ),
        read_run(
            make_run("a", 1, ROWS, settings={"logger": {"mode": "wandb"}, "data": {"root": "/d", "num_workers": 8}})
        ),
    ]
    assert differing_keys(runs) == []
    assert [group.label for group in group_runs(runs)] == ["a"]


def test_by_puts_together_whatever_else_differs(make_run: MakeRun) -> None:
    runs = [
        read_run(make_run(name, 0, ROWS, settings={"optim": {"lr": lr}}))
        for name, lr in (("a", 0.1), ("b", 0.1), ("c", 0.2))
    ]
    groups = group_runs(runs, ["optim.lr"])
    assert [(group.label, len(group.runs)) for group in groups] == [("optim.lr=0.1", 2), ("optim.lr=0.2", 1)]
    assert [group.label for group in group_runs(runs, ["experiment"])] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"by=optim\.rl: no run has such a key"):
        group_runs(runs, ["optim.rl"])


def test_many_differences_are_counted_and_names_stay_apart(make_run: MakeRun) -> None:
    def settings(value: int) -> dict[str, object]:
        return {"model": dict.fromkeys("abcde", value)}

    runs = [read_run(make_run("x", seed, ROWS, settings=settings(seed))) for seed in (0, 1)]
    assert group_runs(runs)[0].label == "x (model.a=0, model.b=0, model.c=0, 2 more)"
    same_start = [
        read_run(make_run("y", seed, ROWS, settings={"model": {"a": 0, "b": 0, "c": 0, "d": seed // 2, "e": seed % 2}}))
        for seed in range(4)
    ]
    labels = [group.label for group in group_runs(same_start)]
    assert labels == [
        "y (model.d=0, model.e=0)",
        "y (model.d=0, model.e=1)",
        "y (model.d=1, model.e=0)",
        "y (model.d=1, model.e=1)",
    ]
