"""Tables of an evaluation: methods side by side, and every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coopmap.evaluation.records import METHODS, PAIR_ERRORS
from coopmap.evaluation.statistics import STATISTICS
from coopmap.metrics.pose import RECALLS_M_DEG
from coopmap.report.numbers import Format, Interval, error_size, percent
from coopmap.report.tables import Column, Row, Section, Table, Value, names
from coopmap.report.terminal import print_table

ERRORS = {"trans_m": "translation (m)", "rot_deg": "rotation (deg)"}
STATISTIC_NAMES = {"mean": "mean", "median": "median", "p90": "90th %"}
ALIGNED = ("_se3", "_sim3")


def print_methods(summary: Mapping[str, Any], title: str) -> None:
    """Translation and rotation errors of all pairs, method by method."""
    where = summary["frames"]["name"] if summary["frames"] else summary["split"]
    title = f"{title}: {where}, {summary['samples']} samples, inputs: {summary['inputs']}"
    print_table(methods_table(summary, title, ("mean", "median"), ("mean",), with_recalls=False))


def methods_table(
    summary: Mapping[str, Any],
    title: str,
    statistics: Sequence[str] = STATISTICS,
    with_bounds: Sequence[str] = STATISTICS,
    with_recalls: bool = True,
) -> Table:
    """Errors over all pairs and the share of pairs within common thresholds, a row per method.

    Args:
        summary: content of ``summary.json``.
        title: of the table.
        statistics: of the errors.
        with_bounds: the ones that are shown with their interval.
        with_recalls: show the shares.
    """
    recalls = [f"recall_{meters}m_{degrees}deg" for meters, degrees in RECALLS_M_DEG] if with_recalls else []
    columns = [
        names(f"{summary['pairs']} pairs"),
        *(
            Column(STATISTIC_NAMES[statistic], form=error_size, group=ERRORS[error])
            for error in PAIR_ERRORS
            for statistic in statistics
        ),
        *(
            Column(f"{meters} m, {degrees}°", form=percent, group="share of pairs within")
            for (meters, degrees), _ in zip(RECALLS_M_DEG, recalls, strict=False)
        ),
    ]
    rows = []
    for method, label in METHODS.items():
        if (figures := summary["methods"].get(method)) is not None:
            cells = [
                _interval(figures[error], statistic) if statistic in with_bounds else figures[error][statistic]
                for error in PAIR_ERRORS
                for statistic in statistics
            ]
            rows.append(Row([label, *cells, *(_interval(figures[name], "mean") for name in recalls)], kind=method))
    for line in summary["published"]:
        values: list[Value] = [f"published: {line['name']}"]
        for error in PAIR_ERRORS:
            values += [line[error], *[None] * (len(statistics) - 1)]
        rows.append(Row([*values, *[None] * len(recalls)], kind="published"))
    bootstrap = summary["bootstrap"]
    conditions = summary.get("published_conditions")
    return Table(
        title,
        columns,
        [Section(rows)],
        "Relative poses of all pairs of agents as they are: in meters and degrees, nothing aligned or scaled to the "
        f"truth. Below each value its {bootstrap['level']:.0%} bootstrap interval ({bootstrap['resamples']} resamples "
        f"of whole {bootstrap['drawn']}).",
        [
            *(f"{METHODS[method]}: {note}" for method, note in summary["notes"].items() if method in METHODS),
            *([f"Published results: {conditions}."] if conditions else []),
        ],
    )


def breakdown_tables(breakdown: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Table]:
    """Median translation errors and the share of right poses, a row per kind of pair, a column per method."""
    rows = [row for rows in breakdown.values() for row in rows]
    present = [method for method in METHODS if any(method in row["methods"] for row in rows)]
    kinds: dict[str, tuple[str, Format, str]] = {
        "trans_m_median": (
            "Translation error by kind of pair, median (m)",
            error_size,
            "Over the pairs for which a method has a pose.",
        ),
        "recall_2m_5deg": (
            "Share of pairs within 2 m and 5°, by kind of pair",
            percent,
            "Of all pairs: those without a pose count as wrong.",
        ),
    }
    return [
        Table(
            title,
            [names("pairs that are"), Column("pairs"), *(Column(METHODS[method], form=form) for method in present)],
            [
                Section(
                    [
                        Row([row["bin"], row["pairs"], *(row["methods"].get(name, {}).get(figure) for name in present)])
                        for row in rows
                        if row["pairs"]
                    ],
                    subject,
                )
                for subject, rows in breakdown.items()
            ],
            note,
        )
        for figure, (title, form, note) in kinds.items()
    ]


def figure_tables(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Table]]:
    """Every metric over samples, by title, in two halves to stand side by side."""
    known = [name for name, figure in figures.items() if figure["count"]]
    aligned = [name for name in known if any(part in name for part in ALIGNED)]
    parts = {
        "Unaligned": [name for name in known if name not in aligned],
        "After alignment to the truth (which one, the name says)": aligned,
    }
    columns = [
        names("figure"),
        *(Column(STATISTIC_NAMES[statistic], form=error_size) for statistic in STATISTICS),
        Column("samples"),
    ]
    found = {}
    for title, chosen in parts.items():
        rows = [
            Row([name, *(_interval(figures[name], statistic) for statistic in STATISTICS), figures[name]["count"]])
            for name in chosen
        ]
        half = -(-len(rows) // 2)
        halves = [part for part in (rows[:half], rows[half:]) if part]
        if halves:
            found[title] = [Table(title, columns, [Section(part)]) for part in halves]
    return found


def _interval(figure: Mapping[str, Any], statistic: str) -> Interval:
    return Interval(figure[statistic], figure.get(f"{statistic}_ci95"))
