"""Tables, files and the command line, on numbers that can be checked by hand."""

import csv
import sys
from pathlib import Path

import pytest

from coopmap import compare as program
from coopmap.comparison.compare import Comparison, compare
from coopmap.comparison.curves import curves, mean_curve
from coopmap.config import ConfigError
from coopmap.report.numbers import DASH

from .conftest import MakeRun, validation

SECTIONS = {
    "before training (zero-shot)": [("a", "2", "9.5 ± 0.71", "20 ± 0"), ("b", "1", "9", "18")],
    "best checkpoint": [("a", "2", "3.25 ± 0.35", "7.5 ± 0.71"), ("b", "1", "2", "5")],  # 3, 3.5 and 8, 7
    "last validation": [("a", "2", "4.75 ± 1.8", "6.5 ± 0.71"), ("b", "1", "2", "5")],  # 6, 3.5 and 6, 7
    # half way between the validations of a: 4.5, 3.75 and 7, 8
    "equal steps (15)": [("a", "2", "4.125 ± 0.53", "7.5 ± 0.71"), ("b", "1", "2", "5")],
    # the end of seed 0, three quarters of the way from 2 s to 10 s of seed 1 (6, 3.625 and 6, 7.5), half way of b
    "equal wall time (8 s)": [("a", "2", "4.812 ± 1.7", "6.75 ± 1.1"), ("b", "1", "5.5", "11.5")],
}


def test_a_place_that_cannot_take_the_comparison_is_said_first(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "comparison").touch()
    monkeypatch.setattr("coopmap.comparison.compare.read_readable_runs", None)
    with pytest.raises(ConfigError, match=r"^output=.*/comparison: .*comparison is a file; expected a folder"):
        compare([str(runs)])


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Two seeds of ``a`` and one run of ``b``, which is slower."""
    mean = {"val/baseline_trans_m_mean": 19.0}
    facts = {"parameters": 2_000_000, "trained_parameters": 500_000, "forward_flops": 3e9, "views": 4}
    rows = [validation(0, 0, 9.0, 20.0, **mean), validation(10, 4, 3.0, 8.0), validation(20, 8, 6.0, 6.0, **mean)]
    make_run("a", 0, [*rows, {"step": 3, "time/step_s": 0.25}], facts=facts)
    rows = [validation(0, 0, 10.0, 20.0, **mean), validation(10, 2, 4.0, 9.0), validation(20, 10, 3.5, 7.0, **mean)]
    make_run("a", 1, rows, facts=facts)
    make_run("b", 0, [validation(0, 0, 9.0, 18.0, **mean), validation(15, 16, 2.0, 5.0, **mean)], facts=facts)
    return tmp_path / "runs"


@pytest.fixture
def comparison(runs: Path) -> Comparison:
    return compare([str(runs)])


def test_table_holds_means_and_spreads(comparison: Comparison) -> None:
    table = comparison.tables[0]
    assert [column.heading for column in table.columns] == ["", "runs", "pose_trans_avg", "translation error, mean (m)"]
    texts = {section.title: [tuple(table.texts(row)) for row in section.rows] for section in table.sections[:-1]}
    assert texts == SECTIONS
    assert [table.texts(row) for row in table.sections[-1].rows] == [["training mean", DASH, DASH, "19"]]
    assert [set(row.marked) for row in table.sections[1].rows] == [set(), {2, 3}]
    assert [set(row.marked) for row in table.sections[0].rows] == [set(), set()]  # nothing was trained yet


def test_a_seed_that_ended_without_numbers_is_shown(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, trans_m in enumerate((8.0, float("inf"), float("nan"))):
        make_run("a", seed, [validation(10, 4, 3.0, 8.0), validation(20, 8, 3.5, trans_m)])
    found = compare([str(tmp_path / "runs")])
    (row,) = found.tables[0].sections[1].rows
    assert found.tables[0].texts(row)[1:] == ["3", "3.5 ± 0", "NaN"]
    curves(found.groups).to_json()


def test_lowest_is_not_marked_where_units_differ(make_run: MakeRun, tmp_path: Path) -> None:
    for name, weight in (("a", 1.0), ("b", 3.0)):
        settings = {"loss": {"weights": {"pose_trans": weight}}}
        make_run(name, 0, [validation(10, 4, weight, 8.0 - weight)], settings=settings)
    table = compare([str(tmp_path / "runs")]).tables[0]
    best = table.sections[0]
    assert [table.texts(row)[2:] for row in best.rows] == [["1", "7"], ["3", "5"]]
    assert [set(row.marked) for row in best.rows] == [set(), {3}]


def test_costs_have_a_column_per_group(comparison: Comparison) -> None:
    table = comparison.tables[1]
    assert [column.heading for column in table.columns] == ["", "a", "b"]
    assert [table.texts(row) for row in table.rows] == [
        ["parameters (M)", "2", "2"],
        ["trained (M)", "0.5", "0.5"],
        ["views per sample", "4", "4"],
        ["forward GFLOP per sample", "3", "3"],
        ["time per step (s)", "0.25", DASH],
        ["steps", "20", "15"],
        ["wall time (min)", "0.15 ± 0.024", "0.2667"],
        ["step of best", "15 ± 7.1", "15"],
    ]


def test_files_lie_beside_the_runs_or_where_one_asks_for(runs: Path, comparison: Comparison, tmp_path: Path) -> None:
    names = ["comparison.html", "comparison.md", "comparison.csv"]
    assert comparison.files == [runs / "comparison" / name for name in names]
    again = compare([str(runs)], output=tmp_path / "mine")
    assert [file.parent for file in again.files] == [tmp_path / "mine"] * 3
    assert [group.label for group in again.groups] == ["a", "b"]  # what was written is no run


def test_csv_holds_every_figure_unrounded(comparison: Comparison) -> None:
    rows = list(csv.DictReader(comparison.files[2].open()))
    (best,) = (
        row for row in rows if (row["group"], row["at"], row["figure"]) == ("a", "best checkpoint", "val/trans_m_mean")
    )
    assert (best["seeds"], best["n"], best["mean"], best["min"], best["max"]) == ("0 1", "2", "7.5", "7.0", "8.0")
    assert float(best["std"]) == pytest.approx(0.5**0.5)
    (parameters,) = (row for row in rows if (row["group"], row["figure"]) == ("b", "parameters (M)"))
    assert (parameters["mean"], parameters["std"], parameters["at"]) == ("2.0", "", "")


def test_markdown_marks_the_lowest(comparison: Comparison) -> None:
    text = comparison.files[1].read_text()
    assert "### best checkpoint" in text
    assert "| a | 2 | 3.25 ± 0.35 | 7.5 ± 0.71 |" in text
    assert "| b | 1 | **2** | **5** |" in text
    assert "- last validated step differs: 20 in a/seed0, a/seed1; 15 in b/seed0" in text


def test_page_needs_no_network_and_escapes_what_it_shows(make_run: MakeRun) -> None:
    folder = make_run("<img src=x onerror=alert(1)>&co", 0, [validation(0, 0, 9.0, 20.0), validation(9, 4, 3.0, 8.0)])
    page = compare([str(folder)]).files[0].read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;co" in page
    assert "<script src=" not in page
    assert "Plotly.newPlot" in page


def test_runs_of_one_name_in_different_folders_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    for place, last in (("here", 3.0), ("there", 5.0)):
        rows = [validation(0, 0, 9.0, 20.0), validation(10, 4, last, 8.0)]
        make_run("a", 0, rows, start={"host": place})
        make_run("a", 1, [])
        (tmp_path / "runs").rename(tmp_path / place)
    found = compare([str(tmp_path / place) for place in ("here", "there")], output=tmp_path / "out")
    assert found.warnings[:2] == [f"{place}/a/seed1 has no validation and is left out" for place in ("here", "there")]
    assert "host differs: here in here/a/seed0; there in there/a/seed0" in "\n".join(found.warnings)
    (group,) = found.groups
    drawn = [trace for trace in curves([group]).data if trace.xaxis == "x" and trace.yaxis == "y"]
    assert [list(trace.y) for trace in drawn] == [[9.0, 3.0], [9.0, 5.0], [9.0, 4.0], [9.0, 9.0]]


def test_a_run_that_cannot_be_read_is_left_out_with_a_line(runs: Path) -> None:
    damaged = runs / "a" / "seed1" / "metrics.csv"
    damaged.write_text("step,val/loss\nx,1\n")
    found = compare([str(runs)])
    assert [run.name for group in found.groups for run in group.runs] == ["a/seed0", "b/seed0"]
    assert found.warnings[0].startswith(f"{damaged.parent}: cannot be read as a run: {damaged}: not a table of metrics")
    assert found.warnings[0].endswith("; left out")
    with pytest.raises(ConfigError, match="cannot be read as a run"):
        compare([str(damaged.parent)])


def test_mean_curve_stays_where_all_curves_are() -> None:
    given = [[(0.0, 4.0), (2.0, 8.0), (4.0, 0.0)], [(0.0, 2.0), (3.0, 2.0)]]
    assert mean_curve(given) == [(0.0, 3.0), (2.0, 5.0), (3.0, 3.0)]  # at 3: 4 and 2
    assert mean_curve([[], [(0.0, 1.0)]]) == []


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    program.main()


def test_terminal_shows_tables_notes_and_files(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, str(runs / "*"), "by=experiment")
    shown = capsys.readouterr().out
    assert "7.5 ± 0.71" in shown
    assert "parameters (M)" in shown
    assert "note: seeds differ: 0, 1 (a); 0 (b)" in shown
    assert f"written to {runs / 'comparison' / 'comparison.html'}" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "/nowhere: no such folder, and no run of that name below runs"),
        (["ouput=x", "/nowhere"], "ouput: no such key. Did you mean output?"),
        (["by=experiment"], "name at least one run, or a folder that holds runs"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_runs_are_found_by_name(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", 0, [validation(0, 0, 9.0, 20.0), validation(9, 4, 3.0, 8.0)])
    call(monkeypatch, "a/seed0", f"runs_root={folder.parents[1]}")
    assert f"written to {folder.parent / 'comparison' / 'comparison.md'}" in capsys.readouterr().out


def test_runs_without_a_validation_are_no_comparison(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", 0, [{"step": 1, "train/loss": 2.0}])
    with pytest.raises(SystemExit):
        call(monkeypatch, str(folder))
    assert capsys.readouterr().err == f"error: {folder}: no run there has a validation yet\n"
