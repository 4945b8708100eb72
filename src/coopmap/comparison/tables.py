"""The numbers of a comparison: figures at several points of training, and costs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coopmap.comparison.caveats import differing_objective
from coopmap.comparison.groups import Group, Spread, number
from coopmap.runs.reader import SECONDS, STEPS, Run
from coopmap.runs.summary import HEADLINES

Read = Callable[[Run], float | None]

GIB = 2.0**30
VALUE_WIDTH = 16
"""On the terminal, so that names have room."""

COSTS: tuple[tuple[str, Read, float], ...] = (
    ("parameters (M)", lambda run: run.facts.get("parameters"), 1e-6),
    ("trained (M)", lambda run: run.facts.get("trained_parameters"), 1e-6),
    ("views per sample", lambda run: run.facts.get("views"), 1),
    ("encoder tokens per sample", lambda run: run.facts.get("encoder_tokens"), 1),
    ("multi-view tokens per sample", lambda run: run.facts.get("multi_view_tokens"), 1),
    ("forward GFLOP per sample", lambda run: run.facts.get("forward_flops"), 1e-9),
    ("training GFLOP per sample", lambda run: run.facts.get("training_flops"), 1e-9),
    ("GPU memory, peak (GiB)", lambda run: run.facts.get("cuda_peak_allocated_bytes"), 1 / GIB),
    ("process memory, peak (GiB)", lambda run: run.facts.get("process_peak_rss_bytes"), 1 / GIB),
    ("time per step (s)", lambda run: run.step_seconds, 1),
    ("steps", lambda run: run.last[STEPS], 1),
    ("wall time (min)", lambda run: run.last.get(SECONDS), 1 / 60),
    ("step of best", lambda run: run.best.get(STEPS), 1),
)
"""Name, value of a run, factor to the unit in the name."""


@dataclass(frozen=True)
class Reading:
    """A point of training at which figures are read.

    Attributes:
        name: for people.
        read: value of a measure of a run at that point.
        is_result: of training.
    """

    name: str
    read: Callable[[Run, str], float | None]
    is_result: bool = True


@dataclass(frozen=True)
class Section:
    """Rows of a table that belong together, the first cell being their name.

    Attributes:
        title: empty for a table without sections.
        rows: cells as text.
        lowest: (row, column) of the cells to mark: the lowest means, when there is something to compare.
    """

    title: str
    rows: list[list[str]]
    lowest: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Table:
    """Text under column headings."""

    title: str
    note: str
    columns: list[str]
    sections: list[Section]


def common(runs: Sequence[Run], clock: str) -> float | None:
    """The latest time that all runs have reached; ``None`` if one has no such clock."""
    ends = [run.last.get(clock) for run in runs]
    return None if None in ends else min(end for end in ends if end is not None)


def readings(runs: Sequence[Run]) -> list[Reading]:
    """The points of training at which runs are compared."""
    step, seconds = common(runs, STEPS), common(runs, SECONDS)
    equal_steps = len({run.last[STEPS] for run in runs}) == 1
    found = [
        Reading("before training (zero-shot)", lambda run, measure: run.zero_shot.get(measure), False),
        Reading("best checkpoint", lambda run, measure: run.best.get(measure)),
        Reading(
            f"last validation (step {step:.0f})" if equal_steps else "last validation",
            lambda run, measure: run.last.get(measure),
        ),
    ]
    if step and not equal_steps:
        found.append(Reading(f"equal steps ({step:.0f})", lambda run, measure: run.value_at(STEPS, step, measure)))
    if seconds:
        found.append(
            Reading(
                f"equal wall time ({duration(seconds)})", lambda run, measure: run.value_at(SECONDS, seconds, measure)
            )
        )
    return found


def all_measures(runs: Sequence[Run]) -> list[str]:
    """Every validation figure but those of single views and of the baseline; the headline figures first."""
    names = {name for run in runs for entry in run.validations for name in entry if name.startswith("val/")}
    rest = sorted(name for name in names if "_view" not in name and not name.startswith("val/baseline_"))
    headline = [name for _, name, _ in HEADLINES if name in names]
    return headline + [name for name in rest if name not in headline]


def measure_table(groups: Sequence[Group]) -> Table:
    """Headline figures of all groups at every reading."""
    runs = [run for group in groups for run in group.runs]
    names = all_measures(runs)
    headline = [(label, name, baseline) for label, name, baseline in HEADLINES if name in names]
    incomparable = ["val/pose_trans_avg"] if differing_objective(runs) else []
    sections = []
    for reading in readings(runs):
        spreads = [[group.spread(_bind(reading, name)) for _, name, _ in headline] for group in groups]
        if any(any(row) for row in spreads):
            rows = [_row(group, row) for group, row in zip(groups, spreads, strict=True)]
            lowest = {(row, column) for row, column in _lowest(spreads) if headline[column - 2][1] not in incomparable}
            sections.append(Section(reading.name, rows, lowest if reading.is_result else set()))
    reference = Group("always the training mean", tuple(runs))
    means = [reference.spread(_last(baseline)) if baseline else None for _, _, baseline in headline]
    if any(means):
        cells = [number(mean.mean) if mean else "" for mean in means]
        sections.append(Section("for reference", [[reference.label, "", *cells]]))
    return Table(
        "Validation figures",
        "Mean ± sample standard deviation over seeds; lower is better, the lowest mean is marked. The best checkpoint "
        "is the one with the lowest monitored figure. At equal steps and equal wall time (the smallest total of all "
        "runs), values are linear between the validations before and after.",
        ["", "runs", *(label for label, _, _ in headline)],
        sections,
    )


def cost_table(groups: Sequence[Group]) -> Table:
    """What the groups cost, a column each; rows without any value are left out."""
    rows = []
    for name, read, factor in COSTS:
        spreads = [group.spread(read) for group in groups]
        if any(spreads):
            rows.append([name, *(spread.text(factor, exact=True) if spread else "" for spread in spreads)])
    return Table(
        "Costs",
        "Tokens and FLOPs are those of one sample with the most agents that validation has; training FLOPs are forward "
        "and backward pass, recomputation under gradient checkpointing included. Time per step is the median of the "
        "logged means; wall time counts validations.",
        ["", *(group.label for group in groups)],
        [Section("", rows)],
    )


def detail_table(groups: Sequence[Group]) -> Table:
    """Every measure at the best checkpoint, one row each."""
    names = all_measures([run for group in groups for run in group.runs])
    best = Reading("best checkpoint", lambda run, measure: run.best.get(measure))
    rows = [[name, *(_text(group.spread(_bind(best, name))) for group in groups)] for name in names]
    columns = ["", *(group.label for group in groups)]
    return Table("All figures at the best checkpoint", "", columns, [Section("", rows)])


def duration(seconds: float) -> str:
    """``9.3 s``, ``12 min`` or ``3.4 h``."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _bind(reading: Reading, name: str) -> Read:
    return lambda run: reading.read(run, name)


def _last(name: str) -> Read:
    return lambda run: run.last.get(name)


def _row(group: Group, spreads: Sequence[Spread | None]) -> list[str]:
    count = max((len(spread.values) for spread in spreads if spread), default=0)
    return [group.label, str(count), *map(_text, spreads)]


def _text(spread: Spread | None) -> str:
    return "" if spread is None else spread.text()


def _lowest(spreads: Sequence[Sequence[Spread | None]]) -> set[tuple[int, int]]:
    """Cells with the lowest mean of their column; two columns of names come before."""
    found = set()
    for column in range(len(spreads[0])):
        means = {row: spread.mean for row, cells in enumerate(spreads) if (spread := cells[column]) is not None}
        if len(set(means.values())) > 1:
            lowest = min(means.values())
            found |= {(row, column + 2) for row, mean in means.items() if mean == lowest}
    return found


def markdown(table: Table) -> str:
    """The table in Markdown, a heading per section; lowest means in bold."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    parts = [f"## {table.title}", *([table.note] if table.note else [])]
    for section in table.sections:
        rows = [
            [f"**{cell}**" if (row, column) in section.lowest else cell for column, cell in enumerate(cells)]
            for row, cells in enumerate(section.rows)
        ]
        ruler = line(["---", *["---:"] * (len(table.columns) - 1)])
        lines = "\n".join([line(table.columns), ruler, *map(line, rows)])
        parts.append(f"### {section.title}\n\n{lines}" if section.title else lines)
    return "\n\n".join(parts) + "\n"


def print_table(table: Table) -> None:
    """Show on the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", title_style="bold")
    shown.add_column(overflow="fold")
    for heading in table.columns[1:]:
        shown.add_column(escape(heading), justify="right", overflow="fold", max_width=VALUE_WIDTH)
    for section in table.sections:
        if section.title:
            shown.add_section()
            shown.add_row(f"[dim]{escape(section.title)}[/dim]")
        for row, cells in enumerate(section.rows):
            marked = [(escape(cell), (row, column) in section.lowest) for column, cell in enumerate(cells)]
            shown.add_row(*(f"[bold]{cell}[/bold]" if lowest else cell for cell, lowest in marked))
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


def write_csv(groups: Sequence[Group], file: Path) -> None:
    """Every measure at every reading and every cost, one row each, for programs."""
    runs = [run for group in groups for run in group.runs]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["group", "seeds", "at", "figure", "n", "mean", "std", "min", "max"])
        writer.writeheader()
        for group in groups:
            for reading in readings(runs):
                for name in all_measures(runs):
                    _write_spread(writer, group, reading.name, name, group.spread(_bind(reading, name)))
            for name, read, factor in COSTS:
                if spread := group.spread(read):
                    spread = Spread(tuple(factor * value for value in spread.values))
                    _write_spread(writer, group, "", name, spread)


def _write_spread(writer: csv.DictWriter, group: Group, at: str, figure: str, spread: Spread | None) -> None:
    if spread is None:
        return
    row: Mapping[str, object] = {
        "group": group.label,
        "seeds": " ".join(str(run.seed) for run in group.runs),
        "at": at,
        "figure": figure,
        "n": len(spread.values),
        "mean": spread.mean,
        "std": spread.std,
        "min": min(spread.values),
        "max": max(spread.values),
    }
    writer.writerow(row)
