"""The static page: tables and curves of runs, from their logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopmap.dashboards.logs import RunLog
from coopmap.dashboards.panels import ALL, Panel, Section, sections
from coopmap.report.numbers import fixed, significant
from coopmap.report.pages import literal, write_page
from coopmap.report.palette import BLUE, GRAY, GREEN, LOG_AXIS, ORANGE, PINK, PURPLE, SKY, VERMILLION, curve_style
from coopmap.report.tables import Column, Row, Table, names
from coopmap.report.tables import Section as Rows
from coopmap.runs.reader import SECONDS
from coopmap.runs.summary import HEADLINES

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = 3
PANEL_HEIGHT = 300
MARKED_POINTS = 30
"""Curves with fewer points show markers."""
DASHES = ("solid", "dot")
"""Of the kinds of curves in one panel, where colors stand for runs."""
KIND_COLORS = {"validation": BLUE, "training": VERMILLION}
"""Of one run; other kinds take the palette's colors in order."""
RUN_COLORS = (BLUE, VERMILLION, GREEN, PINK, SKY, PURPLE)
"""Of several runs, in order: the palette without what GPS and the training mean have."""
RUN_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
"""Of several runs: the next one when all colors are taken."""
MOST_MARKERS = 12
"""Of a curve of many points whose marker says which run it is."""
ZERO_SHOT = {"dash": "dash", "width": 1.5}
TRAINING_MEAN = {"dash": "dot", "width": 1.5, "color": GRAY}
GPS = {"dash": "dashdot", "width": 1.5, "color": ORANGE}


def write_dashboard(logs: Sequence[RunLog], file: Path, notes: Sequence[str] = ()) -> None:
    """Write the page; it needs no server and asks for nothing.

    Args:
        logs: of the runs.
        file: the page.
        notes: sentences about what it lacks.
    """
    known = dict.fromkeys(name for log in logs for row in log.rows for name in row)
    shown = sections(known)
    title = logs[0].label if len(logs) == 1 else f"{len(logs)} runs"
    write_page(
        file,
        "dashboard.html",
        title=f"Dashboard: {title}",
        heading=title,
        has_figures=bool(shown),
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        notes=notes,
        state=state_table(logs),
        headlines=headline_table(logs),
        sections=[(section, section_figure(section, logs)) for section in shown],
        has_gps=any(log.gps for log in logs),
    )


def state_table(logs: Sequence[RunLog]) -> Table:
    """How far each run is."""
    columns = [
        names("run"),
        Column("state"),
        Column("step", form=fixed(0)),
        Column("wall time", "h", fixed(2)),
        Column("time per step", "s"),
        Column("parameters", "million", significant(3)),
    ]
    rows = []
    for log in logs:
        run = log.run
        seconds = max((entry.get(SECONDS, 0.0) for entry in run.validations), default=0.0)
        state = "finished" if run.is_finished else "unfinished"
        hours = seconds / 3600 if seconds else None
        count = run.facts.get("parameters")
        millions = count / 1e6 if isinstance(count, int) else None
        rows.append(Row([log.label, state, log.last_step, hours, run.step_seconds, millions]))
    return Table("Runs", columns, [Rows(rows)])


def headline_table(logs: Sequence[RunLog]) -> Table:
    """Each headline metric before training, at the best and the last validation, and what it compares with."""
    columns = [
        names("run"),
        *(Column(stage) for stage in ("before training", "best checkpoint", "last", "training mean", "GPS")),
    ]
    parts = []
    for label, name, baseline in HEADLINES:
        rows = []
        for log in logs:
            stages = [log.run.zero_shot, log.run.best, log.run.validations[-1] if log.run.validations else {}]
            values = [stage.get(name) for stage in stages]
            mean = stages[2].get(baseline) if baseline is not None else None
            if any(value is not None for value in values):
                rows.append(Row([log.label, *values, mean, log.gps.get(name)]))
        if rows:
            parts.append(Rows(rows, label))
    return Table("Headlines", columns, parts, "The best checkpoint is that with the lowest monitored metric.")


def section_figure(section: Section, logs: Sequence[RunLog]) -> go.Figure:
    """A panel per metric, all over the same steps; a color per run."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    columns = min(COLUMNS, len(section.panels))
    count = -(-len(section.panels) // columns)
    height = PANEL_HEIGHT * count + 90
    figure = make_subplots(
        rows=count, cols=columns, horizontal_spacing=0.09, vertical_spacing=min(0.9 / count, 75 / height)
    )
    named: set[str] = set()
    styles = _kind_styles(section)
    for place, panel in enumerate(section.panels):
        row, column = place // columns + 1, place % columns + 1
        kinds = _kinds(panel, logs)
        for trace in _traces(panel, kinds, logs, styles):
            show = trace["name"] not in named
            named.add(trace["name"])
            figure.add_trace(go.Scatter(**trace, showlegend=show), row=row, col=column)
        figure.update_yaxes(
            title_text=literal(_axis_title(panel, kinds)),
            **(LOG_AXIS if panel.is_log else {}),
            rangemode="tozero" if "share" in panel.title else "normal",
            row=row,
            col=column,
        )
        shared = {"matches": "x"} if place else {}
        figure.update_xaxes(title_text="optimizer step", row=row, col=column, **shared)
    for trace in _kind_legend(section, logs):
        figure.add_trace(go.Scatter(**trace, showlegend=True), row=1, col=1)
    return figure.update_layout(
        height=height,
        margin={"l": 60, "r": 16, "t": 60, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1 + 12 / height, "x": 0},
        hovermode="closest",
    )


def _kind_styles(section: Section) -> dict[str, dict[str, str]]:
    """Of the curves of one run: a kind looks the same in all panels of a section, as the legend has it."""
    kinds = dict.fromkeys(kind for panel in section.panels for kind in panel.keys if kind not in KIND_COLORS)
    styles = {kind: curve_style(number) for number, kind in enumerate(kinds)}
    return styles | {kind: {"color": color, "dash": "solid"} for kind, color in KIND_COLORS.items()}


def _traces(
    panel: Panel, kinds: Sequence[tuple[str, str]], logs: Sequence[RunLog], styles: dict[str, dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Curves of all runs, then the levels that they compare with.

    One run has a style per kind of curve, several have a color and a marker each, and a dash per kind.
    """
    single = len(logs) == 1
    for number, log in enumerate(logs):
        turn, color = divmod(number, len(RUN_COLORS))
        for place, (kind, key) in enumerate(kinds):
            points = log.points(key)
            style = styles[kind] if single else {"color": RUN_COLORS[color], "dash": DASHES[place]}
            line = {**style, "width": 2}
            mode = "lines+markers" if turn or len(points) < MARKED_POINTS else "lines"
            trace = _trace(points, kind if single else log.label, line, mode, _of_run(log, kind))
            yield {**trace, "marker": _marker(turn)} if turn else trace
            if kind == "validation" and (value := log.run.zero_shot.get(key)) is not None:
                yield _level(value, log, "before training" if single else log.label, {**line, **ZERO_SHOT})
    for log in logs:
        for key in panel.keys.values():
            if key in log.gps:
                yield _level(log.gps[key], log, "GPS", GPS)
        if panel.baseline is not None and (points := log.points(panel.baseline)):
            yield _trace(points, "training mean", TRAINING_MEAN, hover=_of_run(log, "training mean"))


def _marker(turn: int) -> dict[str, Any]:
    return {"symbol": RUN_MARKERS[turn % len(RUN_MARKERS)], "size": 8, "maxdisplayed": MOST_MARKERS}


def _kinds(panel: Panel, logs: Sequence[RunLog]) -> list[tuple[str, str]]:
    """The curves of a panel; of several runs one, if these are more than can be told apart.

    That of all parts, or else that which most runs have.
    """
    kinds = list(panel.keys.items())
    if len(logs) == 1 or len(kinds) <= len(DASHES):
        return kinds
    if ALL in panel.keys:
        return [(ALL, panel.keys[ALL])]
    return [max(kinds, key=lambda kind: sum(bool(log.points(kind[1])) for log in logs))]


def _axis_title(panel: Panel, kinds: Sequence[tuple[str, str]]) -> str:
    """With what is shown, where that is not everything."""
    return panel.title if len(kinds) == len(panel.keys) else f"{panel.title}: {kinds[0][0]}"


def _kind_legend(section: Section, logs: Sequence[RunLog]) -> Iterator[dict[str, Any]]:
    """Entries without points that say what a dash means, where colors stand for runs."""
    for place in range(len(DASHES)) if len(logs) > 1 else ():
        shown = [_kinds(panel, logs) for panel in section.panels]
        kinds = [each[place][0] for each in shown if len(each) > max(place, 1)]
        if kinds:
            text = ", ".join(dict.fromkeys(kinds))
            yield {**_trace([], text, {"color": GRAY, "dash": DASHES[place], "width": 2}), "x": [None], "y": [None]}


def _of_run(log: RunLog, kind: str) -> str:
    return f"{log.label}: {kind}"


def _trace(
    points: Sequence[tuple[float, float]], name: str, line: dict[str, Any], mode: str = "lines", hover: str = ""
) -> dict[str, Any]:
    return {
        "x": [step for step, _ in points],
        "y": [value for _, value in points],
        "name": literal(name),
        "legendgroup": name,
        "mode": mode,
        "line": line,
        "hovertext": literal(hover or name),
        "hovertemplate": "%{hovertext}<br>step %{x}: %{y:.4g}<extra></extra>",
    }


def _level(value: float, log: RunLog, name: str, line: dict[str, Any]) -> dict[str, Any]:
    points = [(0, value), (max(log.last_step, 1), value)]
    return _trace(points, name, line, hover=_of_run(log, "GPS" if name == "GPS" else "before training"))
