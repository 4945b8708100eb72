"""One table in four forms."""

import math

import pytest

from coopmap.report.numbers import DASH, Interval, Spread, fixed
from coopmap.report.tables import Column, Row, Section, Table, names
from coopmap.report.terminal import layout, print_table

SPREAD = Spread((1.0, 2.0))
TABLE = Table(
    "Title",
    [names("run"), Column("error", "m", fixed(2)), Column("a | b"), Column("low", group="both")],
    [
        Section(
            [Row(["first", 1 / 3, SPREAD, 3], marked={1}), Row(["second", None, math.nan, Interval(2.0, (1.0, 3.0))])]
        )
    ],
    "A note.",
    ["A footnote."],
)


def test_text_of_cells() -> None:
    assert [TABLE.texts(row) for row in TABLE.rows] == [
        ["first", "0.33", "1.5 ± 0.71", "3"],
        ["second", DASH, "NaN", "2 [1, 3]"],
    ]


def test_markdown() -> None:
    assert (
        TABLE.markdown()
        == f"""## Title

A note.

| run | error (m) | a \\| b | both, low |
| --- | ---: | ---: | ---: |
| first | **0.33** | 1.5 ± 0.71 | 3 |
| second | {DASH} | NaN | 2 [1, 3] |

A footnote.
"""
    )


def test_records_have_full_precision() -> None:
    first, second = TABLE.records()
    assert first["error (m)"] == 1 / 3
    assert (first["a | b"], first["a | b std"]) == (1.5, pytest.approx(0.5**0.5, rel=1e-15))
    assert second["error (m)"] is None
    assert math.isnan(second["a | b"])
    assert (second["both, low"], second["both, low low"], second["both, low high"]) == (2.0, 1.0, 3.0)


def lines_of(table: Table, capsys: pytest.CaptureFixture[str], width: int | None = None) -> list[str]:
    print_table(table, width)
    return capsys.readouterr().out.splitlines()


def wide_table() -> Table:
    columns = [names("group"), *(Column(f"translation error of variant {i}, mean (m)") for i in range(9))]
    rows = [
        Row([f"a long name of a group, number {group}", *(Spread((1234.5 + i, 1300.0 + group)) for i in range(9))])
        for group in range(3)
    ]
    return Table("wide", columns, [Section(rows, "a section")])


@pytest.mark.parametrize("width", [40, 60, 80, 120, 300])
def test_no_line_is_longer_than_the_terminal_and_no_figure_is_broken(width: int, capsys) -> None:
    table = wide_table()
    shown = lines_of(table, capsys, width)
    assert max(map(len, shown)) <= width
    for row in table.rows:
        for text in table.texts(row)[1:]:
            assert any(text in line for line in shown), text
    numbers = sum(line.split().count("±") for line in shown)
    assert numbers == 27  # each figure once


@pytest.mark.parametrize("width", range(24, 100))
def test_words_of_headings_and_short_names_stay_whole(width: int, capsys) -> None:
    """Whatever the number of columns that just fit."""
    headings = ("right", "down", "forward", "distance", "yaw", "rotation")
    columns = [names("view"), *(Column(heading, "m", fixed(2)) for heading in headings)]
    shown = lines_of(Table("", columns, [Section([Row(["601", *map(float, range(6))])])]), capsys, width)
    assert max(map(len, shown)) <= width
    words = " ".join(shown).split()
    assert {"view", "601", "(m)", *headings, *(f"{value}.00" for value in range(6))} <= set(words)


def test_piped_output_has_80_columns(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    longest = max(map(len, lines_of(wide_table(), capsys)))
    assert 60 < longest <= 80


def test_names_stand_in_every_part() -> None:
    assert layout(["name", "one", "two", "three"], [10, 10, 10, 10], 30) == [
        ([0, 1], [10, 10]),
        ([0, 2], [10, 10]),
        ([0, 3], [10, 10]),
    ]
    assert layout(["name", "two words", "b"], [4, 3, 3], 80) == [([0, 1, 2], [4, 9, 3])]


def test_marks_and_brackets_are_text_on_the_terminal(capsys) -> None:
    table = Table("[red]t", [names("[b]"), Column("x")], [Section([Row(["[/b] [i]", 1.0], {1})], "[s]")], "", ["[f]"])
    shown = "\n".join(lines_of(table, capsys, 80))
    for text in ("[red]t", "[b]", "[/b] [i]", "[s]", "[f]"):
        assert text in shown
