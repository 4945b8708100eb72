import math
from pathlib import Path

import pytest

from coopmap.config import ConfigError
from coopmap.runs.reader import SECONDS, STEPS, find_runs, flatten, interpolate, read_run

from .conftest import MakeRun, validation

ROWS = [
    validation(0, 0.0, 9.0, 20.0),
    {"step": 0, "time/step_s": 0.9},
    {"step": 5, "time/step_s": 0.2},
    {"step": 9, "time/step_s": 0.3},
    validation(10, 4.0, 3.0, 8.0),
    validation(20, 8.0, 5.0, 6.0),
]


def test_a_run_tells_zero_shot_best_and_last(make_run: MakeRun) -> None:
    run = read_run(make_run("fusion_mean", 3, ROWS, facts={"parameters": 7}))
    assert (run.experiment, run.seed, run.name) == ("fusion_mean", 3, "fusion_mean/seed3")
    assert [entry[STEPS] for entry in run.validations] == [0, 10, 20]
    assert run.zero_shot["val/trans_m_mean"] == 20.0
    assert (run.best[STEPS], run.best["val/trans_m_mean"]) == (10, 8.0)  # lowest pose_trans_avg
    assert run.last["val/trans_m_mean"] == 6.0
    assert run.step_seconds == 0.3  # median of 0.9, 0.2, 0.3
    assert run.facts == {"parameters": 7}
    assert run.is_finished


def test_best_follows_the_monitored_figure_and_is_never_the_untrained_model(make_run: MakeRun) -> None:
    settings = {"checkpoint": {"monitor": "val/trans_m_mean"}}
    rows = [validation(0, 0, 1.0, 1.0), validation(10, 4, 3.0, 8.0), validation(20, 8, 5.0, 6.0)]
    assert read_run(make_run("a", 0, rows, settings=settings)).best[STEPS] == 20
    assert read_run(make_run("b", 0, rows[:1])).best == {}


def test_no_checkpoint_is_best_for_an_error_that_is_no_number(make_run: MakeRun) -> None:
    rows = [validation(0, 0, 9.0, 9.0), validation(10, 4, math.nan, 8.0), validation(20, 8, 5.0, 6.0)]
    assert read_run(make_run("a", 0, rows)).best[STEPS] == 20
    assert read_run(make_run("b", 0, rows[:2])).best == {}


def test_values_between_validations_are_linear(make_run: MakeRun) -> None:
    run = read_run(make_run("a", 0, ROWS))
    assert run.value_at(SECONDS, 5.0, "val/trans_m_mean") == 7.5  # a quarter of the way from 8 to 6
    assert run.value_at(STEPS, 10, "val/trans_m_mean") == 8.0
    assert run.value_at(SECONDS, 8.1, "val/trans_m_mean") is None
    assert run.value_at(SECONDS, 5.0, "val/unknown") is None
    assert interpolate([(1.0, 2.0)], 0.5) is None


def test_runs_without_clocks_have_lightnings_step(make_run: MakeRun) -> None:
    run = read_run(make_run("a", 0, [{"step": 0, "val/pose_trans_avg": 2.0}, {"step": 9, "val/pose_trans_avg": 1.0}]))
    assert [entry[STEPS] for entry in run.validations] == [0, 9]
    assert run.value_at(SECONDS, 1.0, "val/pose_trans_avg") is None
    assert run.step_seconds is None


def test_folders_and_patterns_lead_to_runs_each_once(make_run: MakeRun, tmp_path: Path) -> None:
    mean, gru = make_run("fusion_mean", 0, ROWS), make_run("fusion_conv_gru", 0, ROWS)
    other = make_run("cyl_posefix", 0, ROWS)
    (killed := tmp_path / "runs" / "fusion_mean" / "killed").mkdir()
    (killed / "train.log").write_text("")
    found, without = find_runs([str(tmp_path / "runs" / "fusion_*"), str(mean)])
    assert found == [gru.resolve(), mean.resolve()]
    assert without == [killed.resolve()]
    assert set(find_runs([str(tmp_path)])[0]) == {mean, gru, other}


def test_runs_for_debugging_are_found_where_their_folder_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    run, tried = make_run("cyl_posefix", 0, ROWS), make_run("debug/cyl_posefix", 0, ROWS)
    assert find_runs([str(tmp_path / "runs")]) == ([run], [])
    assert find_runs([str(tmp_path / "runs" / "debug")]) == ([tried], [])


def test_places_without_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/nowhere/x\\*: no such folder"):
        find_runs(["/nowhere/x*"])
    with pytest.raises(ConfigError, match=r"holds no run; a run folder has config\.yaml and metrics\.csv"):
        find_runs([str(tmp_path)])


def test_broken_files_are_named(make_run: MakeRun) -> None:
    folder = make_run("a", 0, ROWS)
    (folder / "model.json").write_text("{half")
    with pytest.raises(ConfigError, match="a/seed0: cannot be read as a run"):
        read_run(folder)


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
