"""Tables of an evaluation: methods side by side, and every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coopmap.evaluation.confidence import SUCCESS, WITHIN, WITHIN_M_DEG
from coopmap.evaluation.probes.summary import PROBE_ROWS
from coopmap.evaluation.records import METHODS, PAIR_ERRORS
from coopmap.evaluation.statistics import STATISTICS
from coopmap.metrics.aggregate import QUANTILES
from coopmap.metrics.pose import RECALLS_M_DEG, recall_label, recall_name
from coopmap.report.numbers import Format, Interval, error_size, percent
from coopmap.report.tables import Column, Row, Section, Table, Value, names
from coopmap.report.terminal import print_table

ERRORS = {"trans_m": "translation (m)", "rot_deg": "rotation (deg)"}
PROBED: dict[str, tuple[str, str, Format]] = {
    "share": ("share (%)", "mean", lambda share: error_size(100 * share)),
    "confidence": ("confidence", "mean", percent),
    "covisibility_pred": ("co-visibility", "mean", percent),
    "trans_m": ("translation (m)", "median", error_size),
    "rot_deg": ("rotation (deg)", "median", error_size),
}
"""What probes measure: its name, the statistic that is shown, and its format."""
PROBE_TITLES = {
    "other_street": ("Probe: agents in different streets", "Both expectations must collapse."),
    "alone": (
        "Probe: one agent alone",
        "Both expectations must collapse, and the answer be no nearer than one that looks at nothing.",
    ),
    "seam": ("Probe: another seam", "The answer, turned back, must be as near as before."),
    "blind": ("Probe: where no camera looks", "About no match may lie there."),
    "moving": ("Probe: moving vehicles", "Poses must not rest on what has moved by the next tick."),
}
"""Of each probe, the title of its table and what must be seen there."""
STATISTIC_NAMES = {"mean": "mean", "median": "median", "p90": "90th %", "p95": "95th %"}
ALIGNED = ("_se3", "_sim3")


def print_methods(summary: Mapping[str, Any], title: str) -> None:
    """Translation and rotation errors of all pairs, method by method."""
    where = summary["frames"]["name"] if summary["frames"] else summary["split"]
    title = f"{title}: {where}, {summary['samples']} samples, inputs: {summary['inputs']}"
    print_table(methods_table(summary, title, ("mean", "median"), ("mean",)))


def print_kinds_of_pairs(summary: Mapping[str, Any]) -> None:
    """Medians and shares within limits of all pairs and of those that share enough; what is left if the model may
    abstain; what probes found.
    """
    print_table(overall_table(summary))
    abstaining = abstaining_table(summary)
    for table in ([] if abstaining is None else [abstaining]) + probe_tables(summary):
        print_table(table)


def methods_table(
    summary: Mapping[str, Any],
    title: str,
    statistics: Sequence[str] = STATISTICS,
    with_bounds: Sequence[str] = STATISTICS,
) -> Table:
    """Errors over all pairs, a row per method.

    Args:
        summary: content of ``summary.json``.
        title: of the table.
        statistics: of the errors.
        with_bounds: the ones that are shown with their interval.
    """
    columns = [
        names(f"{summary['pairs']} pairs"),
        *(
            Column(STATISTIC_NAMES[statistic], form=error_size, group=ERRORS[error])
            for error in PAIR_ERRORS
            for statistic in statistics
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
            rows.append(Row([label, *cells], kind=method))
    for line in summary["published"]:
        values: list[Value] = [f"published: {line['name']}"]
        for error in PAIR_ERRORS:
            values += [line[error], *[None] * (len(statistics) - 1)]
        rows.append(Row(values, kind="published"))
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


def success_table(summary: Mapping[str, Any]) -> Table:
    """The share of pairs within common thresholds, and of those with an answer, a row per method."""
    columns = [
        names(f"{summary['pairs']} pairs"),
        *(Column(recall_label(*limits), form=percent, group="share of pairs within") for limits in RECALLS_M_DEG),
        Column("answered", form=percent),
    ]
    rows = [
        Row(
            [
                label,
                *(_interval(figures[recall_name(*limits)], "mean") for limits in RECALLS_M_DEG),
                figures["apply_rate"]["mean"],
            ],
            kind=method,
        )
        for method, label in METHODS.items()
        if (figures := summary["methods"].get(method)) is not None
    ]
    return Table("How many are right", columns, [Section(rows)], "Pairs without an answer count as wrong.")


def overall_table(summary: Mapping[str, Any]) -> Table:
    """The model's medians and shares within limits, with intervals: of all pairs and of those that share enough."""
    columns = [
        names("pairs"),
        *(Column(label, form=error_size, group="median") for label in ERRORS.values()),
        *(Column(recall_label(*limits), form=percent, group="share of pairs within") for limits in WITHIN_M_DEG),
        Column("pairs"),
    ]
    rows = [
        Row(
            [
                row["bin"],
                *(_interval(row[error], "median") for error in PAIR_ERRORS),
                *(_interval(row[name], "mean") for name in WITHIN),
                row["pairs"],
            ]
        )
        for row in summary["overall"]
        if row["pairs"]
    ]
    return Table("Medians and successes of the model", columns, [Section(rows)])


def abstaining_table(summary: Mapping[str, Any]) -> Table | None:
    """What is left if the model answers only where it is confident; ``None`` for a model that does not say."""
    rows = (summary["confidence"] or {}).get("abstaining")
    if not rows:
        return None
    columns = [
        names("confidence at least"),
        Column("apply rate", form=percent),
        *(
            Column(recall_label(*limits), form=percent, group="success of the answers within")
            for limits in WITHIN_M_DEG
        ),
        *(Column(STATISTIC_NAMES[name], "m", error_size, group="translation") for name in QUANTILES),
        *(Column(STATISTIC_NAMES[name], "deg", error_size, group="rotation") for name in QUANTILES),
        Column("answers"),
    ]
    body = [
        Row(
            [
                f"{row['confidence']:g}" if row["confidence"] else "0: answers always",
                row["apply_rate"],
                *(row[name] for name in WITHIN),
                *(row[f"{error}_{name}"] for error in PAIR_ERRORS for name in QUANTILES),
                row["pairs"],
            ]
        )
        for row in rows
    ]
    note = "Apply rate: share of the pairs for which the model answers. Success and errors are of these alone."
    return Table("If the model may abstain", columns, [Section(body)], note)


def probe_tables(summary: Mapping[str, Any]) -> list[Table]:
    """What each probe found, beside the model's answers to the same pairs as they are."""
    tables = []
    for probe, found in summary["probes"].items():
        shown = {name: PROBED[name] for name in PROBED if any(name in figures for figures in found.values())}
        columns = [
            names("pairs"),
            *(Column(label, form=form, group=statistic) for label, statistic, form in shown.values()),
            Column("pairs"),
        ]
        rows = [
            Row(
                [
                    PROBE_ROWS[probe][key].label,
                    *(
                        _interval(figures[name], statistic) if name in figures else None
                        for name, (_label, statistic, _form) in shown.items()
                    ),
                    max(figure["count"] for figure in figures.values()),
                ]
            )
            for key, figures in found.items()
            if figures
        ]
        title, note = PROBE_TITLES[probe]
        tables.append(Table(title, columns, [Section(rows)], note))
    return tables


def breakdown_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Median translation errors and the share of right poses, a row per kind of pair, a column per method."""
    kinds = {"": summary["overall"], **summary["breakdown"]}
    present = [method for method in METHODS if method in summary["methods"]]
    figures: dict[str, tuple[str, Format, str]] = {
        "trans_m_median": (
            "Translation error by kind of pair, median (m)",
            error_size,
            "Over the pairs for which a method has a pose.",
        ),
        SUCCESS: (
            "Share of pairs within 2 m and 5°, by kind of pair",
            percent,
            "Of all pairs: those without a pose count as wrong.",
        ),
    }
    tables = []
    for figure, (title, form, note) in figures.items():
        columns = [names("pairs by"), Column("pairs"), *(Column(METHODS[method], form=form) for method in present)]
        sections = [
            Section(
                [
                    Row([row["bin"], row["pairs"], *(row["methods"][method][figure] for method in present)])
                    for row in rows
                    if row["pairs"]
                ],
                subject,
            )
            for subject, rows in kinds.items()
        ]
        tables.append(Table(title, columns, [section for section in sections if section.rows], note))
    return tables


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
