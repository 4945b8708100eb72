"""The static page says what the logs say."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markupsafe import escape

from coopmap import dashboard as program
from coopmap.config import ConfigError
from coopmap.config.dashboard import DashboardConfig
from coopmap.dashboards.command import build_page
from coopmap.dashboards.logs import gps_errors, read_logs
from coopmap.dashboards.page import headline_table, section_figure, write_dashboard
from coopmap.dashboards.panels import loss_terms, sections
from coopmap.report.palette import GRAY, ORANGE
from coopmap.runs.reader import read_run

from ..html_elements import Elements
from .conftest import ODD, MakeRun


def traces(figure: Any, axis: str, name: str) -> list[tuple[list[float], list[float]]]:
    """Points of the curves of a name in the panel with a title."""
    (place,) = (
        key.removeprefix("layout.").replace("yaxis", "y")
        for key in figure.layout
        if key.startswith("yaxis") and figure.layout[key].title.text == axis
    )
    return [(list(trace.x), list(trace.y)) for trace in figure.data if trace.yaxis == place and trace.name == name]


def test_the_metric_that_counts_stands_first_with_what_it_was_before_training(make_run: MakeRun) -> None:
    logs = read_logs([read_run(make_run("a", "one"))])
    first = sections(dict.fromkeys(name for row in logs[0].rows for name in row))[0]
    figure = section_figure(first, logs)
    assert [panel.title for panel in first.panels] == ["pose_trans_avg"]
    assert traces(figure, "pose_trans_avg", "validation") == [([0, 10, 20], [20.0, 10.0, 20.0 / 3])]
    assert traces(figure, "pose_trans_avg", "before training") == [([0, 20], [20.0, 20.0])]


def test_meters_have_the_lines_of_gps_and_of_the_training_mean(make_run: MakeRun, gps: dict[str, Any]) -> None:
    logs = read_logs([read_run(make_run("a", "one", gps=gps))])
    section = sections(dict.fromkeys(name for row in logs[0].rows for name in row))[1]
    figure = section_figure(section, logs)
    label = "translation error, mean (m)"
    assert traces(figure, label, "GPS") == [([0, 20], [1.5, 1.5])]
    assert traces(figure, label, "training mean") == [([0, 10, 20], [19.5] * 3)]
    assert traces(figure, label, "validation") == [([0, 10, 20], [20.0, 19.0, 18.0])]
    table = headline_table(logs)
    rows = {part.title: table.texts(part.rows[0]) for part in table.sections}
    assert rows[label][1:] == ["20", "18", "18", "19.5", "1.5"]
    assert rows["pose_trans_avg"][1:4] == ["20", "6.667", "6.667"]


def test_gps_is_that_of_an_evaluation_on_the_validation_split(make_run: MakeRun, gps: dict[str, Any]) -> None:
    assert gps_errors(read_run(make_run("a", "none"))) == {}
    assert gps_errors(read_run(make_run("a", "test", gps=gps | {"split": "test"}))) == {}
    found = gps_errors(read_run(make_run("a", "val", gps=gps)))
    assert found == {"val/trans_m_mean": 1.5, "val/trans_m_median": 1.25, "val/rot_deg_mean": 0.75}


OWN_ROOT, OTHER_ROOT = "/data/own", "/data/other"


@pytest.mark.parametrize(
    ("measured", "is_own"),
    [
        ({"data_root": OTHER_ROOT, "overrides": [f"data.root={OTHER_ROOT}"]}, False),
        ({"data_root": OWN_ROOT + "/", "overrides": [f"data.root={OWN_ROOT}/"]}, True),
        ({"overrides": ["trainer.accelerator=cpu"]}, True),
        ({"overrides": [f"data.root={OTHER_ROOT}"]}, False),
        ({"overrides": ["data=town"]}, False),
        ({"overrides": ["preset=town"]}, False),
    ],
)
def test_gps_on_other_data_is_no_line_of_the_run(
    measured: dict[str, Any], is_own: bool, make_run: MakeRun, gps: dict[str, Any]
) -> None:
    folder = make_run("a", "one", gps=gps | measured)
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"data": {"root": OWN_ROOT}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert bool(gps_errors(read_run(folder))) == is_own


def test_runs_keep_their_color_and_losses_come_by_term(make_run: MakeRun) -> None:
    logs = read_logs([read_run(make_run("a", name, first)) for name, first in (("one", 20.0), ("two", 10.0))])
    known = dict.fromkeys(name for row in logs[0].rows for name in row)
    assert loss_terms(known) == ["loss", "pose_trans_avg"]
    colors: dict[str, set[str]] = {}
    titles = []
    for section in sections(known):
        titles.append(section.title)
        for trace in section_figure(section, logs).data:
            if trace.name.startswith("a/"):
                colors.setdefault(trace.name, set()).add(trace.line.color)
    assert set(colors) == {"a/one", "a/two"}
    assert all(len(found) == 1 for found in colors.values())
    assert colors["a/one"] != colors["a/two"]
    assert titles == [
        "Is it learning?",
        "Meters and degrees",
        "Scale, depth and masks",
        "Losses by term",
        "Throughput",
        "System and optimizer",
    ]
    losses = section_figure(sections(known)[3], logs)
    assert traces(losses, "loss", "a/one")[0] == ([4, 14], pytest.approx([2.6, 1.6]))


def test_no_two_of_many_runs_look_the_same_and_none_like_what_they_compare_with(
    make_run: MakeRun, gps: dict[str, Any]
) -> None:
    logs = read_logs([read_run(make_run("a", f"run {number}", gps=gps)) for number in range(14)])
    section = sections(dict.fromkeys(name for row in logs[0].rows for name in row))[1]
    looks: dict[str, set[tuple[Any, ...]]] = {}
    levels = set()
    for trace in section_figure(section, logs).data:
        if trace.name.startswith("a/"):
            looks.setdefault(trace.name, set()).add((trace.line.color, trace.marker.symbol))
        else:
            levels.add(trace.line.color)
    curves = [next(look for look in found if look[1] or len(found) == 1) for found in looks.values()]
    assert len(set(curves)) == len(looks) == 14
    assert levels == {GRAY, ORANGE}
    assert levels.isdisjoint(color for color, _ in curves)


def test_of_several_runs_the_whole_gradient_is_shown_and_the_axis_says_so(make_run: MakeRun) -> None:
    runs = [read_run(make_run("a", name)) for name in ("one", "two")]
    logs = read_logs(runs)
    parts = {f"{kind}/{part}": 1.0 for kind in ("lr", "grad_norm") for part in ("encoder", "fusion", "heads")}
    rows = [[{**row, **parts} if "train/loss" in row else row for row in log.rows] for log in logs]
    logs = [replace(log, rows=own) for log, own in zip(logs, rows, strict=True)]
    section = sections(dict.fromkeys(name for row in logs[0].rows for name in row))[-1]
    figure = section_figure(section, logs)
    assert traces(figure, "norm of the gradient: all", "a/one") == [([4, 14], [3.0, 3.0])]
    assert traces(figure, "learning rate: encoder", "a/two") == [([4, 14], [1.0, 1.0])]
    assert len(traces(section_figure(section, logs[:1]), "norm of the gradient", "heads")) == 1


def test_a_damaged_evaluation_is_left_out_and_named(make_run: MakeRun, gps: dict[str, Any]) -> None:
    run = make_run("a", "one", gps=gps)
    (run / "evaluation").mkdir()
    damaged = run / "evaluation" / "summary.json"
    damaged.write_text('{"split": "val", "meth')
    page, notes = build_page(DashboardConfig(run=str(run)))
    assert notes == [f"{damaged} is damaged and left out"]
    assert f"{damaged} is damaged" in page.read_text()
    assert gps_errors(read_run(run))["val/trans_m_mean"] == 1.5


def test_a_run_that_cannot_be_read_is_left_out_and_named(make_run: MakeRun) -> None:
    good, damaged = (make_run("a", name) for name in ("one", "two"))
    (damaged / "config.yaml").write_text("")
    page, (note,) = build_page(DashboardConfig(runs=[str(good.parent)]))
    assert note.startswith(f"{damaged}: cannot be read as a run: {damaged}/config.yaml: empty")
    assert note.endswith("; left out")
    assert f"{damaged}: cannot be read" in page.read_text()


def test_names_are_text_and_nothing_is_fetched(make_run: MakeRun, tmp_path: Path) -> None:
    odd = ODD.replace("/", "-")
    write_dashboard(read_logs([read_run(make_run("a", odd)), read_run(make_run("a", "two"))]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert Elements(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)).addresses() == []


def test_the_command_writes_beside_the_runs(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make_run("a", "one")
    make_run("b", "two")
    for arguments, place in (([f"run={one}"], one), ([str(tmp_path / "runs")], tmp_path / "runs")):
        monkeypatch.setattr(sys, "argv", ["dashboard", *arguments])
        program.main()
        assert capsys.readouterr().out == f"written to {place}/dashboard.html\n"
        assert (place / "dashboard.html").is_file()


def test_runs_that_are_left_out_are_named_on_the_page_and_in_the_terminal(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("a", "one")
    silent, early = make_run("a", ODD.replace("/", "-")), make_run("a", "early")
    (silent / "metrics.csv").unlink()
    (silent / "train.log").touch()
    (early / "metrics.csv").write_text("step,train/loss\n4,2.5\n")
    monkeypatch.setattr(sys, "argv", ["dashboard", str(tmp_path / "runs")])
    program.main()
    notes = [
        f"a/{silent.name} has logged nothing yet and is left out",
        "a/early has no validation yet, so headlines lack it",
    ]
    page = tmp_path / "runs" / "a" / "dashboard.html"
    assert capsys.readouterr().out == "".join(f"note: {note}\n" for note in notes) + f"written to {page}\n"
    assert [str(escape(note)) in page.read_text() for note in notes] == [True, True]


def test_runs_of_one_name_have_a_color_each(make_run: MakeRun, tmp_path: Path) -> None:
    for place in ("here", "there"):
        make_run("a", "one")
        (tmp_path / "runs").rename(tmp_path / place)
    page, notes = build_page(DashboardConfig(runs=[str(tmp_path / "here"), str(tmp_path / "there")]))
    assert notes == []
    assert [f"{place}/a/one" in page.read_text() for place in ("here", "there")] == [True, True]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "give one of run=RUN"),
        ({"run": "latest", "runs": ["a"]}, "give one of run=RUN"),
        ({"wandb": "project"}, "expected ENTITY/PROJECT"),
        ({"run": "latest", "upload": False}, "upload=false: goes with wandb"),
        ({"wandb": "a/b", "upload": False}, "upload=false: goes with wandb"),
    ],
)
def test_options_that_contradict_each_other_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DashboardConfig(**asked)


def test_a_folder_that_cannot_take_the_page_is_said_first(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("a", "first")
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("coopmap.dashboards.command.read_readable_runs", None)
    with pytest.raises(ConfigError, match=r"^output=.*/a/first: .*first cannot be written to; choose another folder"):
        build_page(DashboardConfig(run=str(run)))


def test_a_run_without_logs_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.log").write_text("")
    with pytest.raises(ConfigError, match="logged nothing yet"):
        build_page(DashboardConfig(run=str(tmp_path / "run")))


def test_the_workspace_of_wandb_is_built_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces")
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(
        sys, "argv", ["dashboard", "wandb=me/coopmap", "upload=false", f"output={tmp_path / 'specifications'}"]
    )
    program.main()
    workspace = json.loads((tmp_path / "specifications" / "workspace.json").read_text())
    assert (workspace["entity"], workspace["project"]) == ("me", "coopmap")
    parts = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [part["name"] for part in parts] == [
        "Is it learning?",
        "Meters and degrees",
        "Scale, depth and masks",
        "Losses by term",
        "Throughput",
        "System and optimizer",
        "Frames",
    ]
    (first,) = parts[0]["panels"]
    assert first["viewType"] == "Run History Line Plot"
    assert first["config"]["metrics"] == ["val/pose_trans_avg", "zero_shot/pose_trans_avg"]
    assert first["config"]["xAxis"] == "trainer/global_step"
    meters = {panel["config"]["chartTitle"]: panel["config"]["metrics"] for panel in parts[1]["panels"]}
    assert meters["translation error, mean (m)"] == [
        "val/trans_m_mean",
        "val/baseline_trans_m_mean",
        "zero_shot/trans_m_mean",
    ]
    assert {panel["config"]["metricRegex"] for panel in parts[3]["panels"] if "metricRegex" in panel["config"]} == {
        "train/.*_avg",
        "val/[a-z0-9_]*_avg",
    }
    report = json.loads((tmp_path / "specifications" / "fusion_report.json").read_text())
    (grid,) = (block for block in report["spec"]["blocks"] if block["type"] == "panel-grid")
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    assert len(panels) == 8
    assert {panel["config"]["groupBy"] for panel in panels} == {"experiment.value"}
    assert grid["metadata"]["runSets"][0]["grouping"] == [{"section": "config", "name": "experiment.value"}]


def test_a_network_that_fails_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspaces = pytest.importorskip("wandb_workspaces.workspaces")

    def refuse(_: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(workspaces.Workspace, "save", refuse)
    monkeypatch.setattr(sys, "argv", ["dashboard", "wandb=me/coopmap"])
    with pytest.raises(SystemExit):
        program.main()
    assert capsys.readouterr().err == "error: wandb=me/coopmap: W&B did not take it: network is unreachable\n"
