"""The numbers of a comparison: metrics at several points of training, and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from coopmap.comparison.caveats import differing_objective
from coopmap.report.numbers import Spread, duration
from coopmap.report.tables import Column, Row, Section, Table, names
from coopmap.runs.groups import Group
from coopmap.runs.reader import SECONDS, STEPS, Run
from coopmap.runs.summary import HEADLINES

Read = Callable[[Run], float | None]

GIB = 2.0**30
NAME_COLUMNS = 2
"""Before the metrics: group and number of runs."""

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
    """A point of training at which metrics are read.

    Attributes:
        name: shown in tables.
        read: value of a run's metric at that point.
        is_result: whether it is a result of training.
    """

    name: str
    read: Callable[[Run, str], float | None]
    is_result: bool = True


def common(runs: Sequence[Run], clock: str) -> float | None:
    """The latest time that all runs have reached; ``None`` if one of them lacks this clock."""
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
    """Every validation metric but those of single views and of the baseline; the headline metrics first."""
    known = {name for run in runs for entry in run.validations for name in entry if name.startswith("val/")}
    rest = sorted(name for name in known if "_view" not in name and not name.startswith("val/baseline_"))
    headline = [name for _, name, _ in HEADLINES if name in known]
    return headline + [name for name in rest if name not in headline]


def measure_table(groups: Sequence[Group]) -> Table:
    """Headline metrics of all groups at every reading."""
    runs = [run for group in groups for run in group.runs]
    known = all_measures(runs)
    headline = [(label, name, baseline) for label, name, baseline in HEADLINES if name in known]
    incomparable = ["val/pose_trans_avg"] if differing_objective(runs) else []
    sections = []
    for reading in readings(runs):
        spreads = [[group.spread(_bind(reading, name)) for _, name, _ in headline] for group in groups]
        if any(any(row) for row in spreads):
            comparable = [reading.is_result and name not in incomparable for _, name, _ in headline]
            lowest = _lowest(spreads, comparable)
            rows = [
                _row(group, row, {column for place, column in lowest if place == number})
                for number, (group, row) in enumerate(zip(groups, spreads, strict=True))
            ]
            sections.append(Section(rows, reading.name))
    reference = Group("training mean", tuple(runs))
    means = [reference.spread(_last(baseline)) if baseline else None for _, _, baseline in headline]
    if any(means):
        cells = [mean.mean if mean else None for mean in means]
        sections.append(Section([Row([reference.label, None, *cells])], "for reference"))
    return Table(
        "Validation figures",
        [names(), Column("runs"), *(Column(label) for label, _, _ in headline)],
        sections,
        "Mean ± sample standard deviation over seeds; lower is better, the lowest mean is marked. The best checkpoint "
        "is the one with the lowest monitored metric. At equal steps and equal wall time (the smallest total of all "
        "runs), values are linear between the validations before and after.",
    )


def cost_table(groups: Sequence[Group]) -> Table:
    """What the groups cost, a column each; rows without any value are left out."""
    rows = []
    for name, read, factor in COSTS:
        spreads = [group.spread(read) for group in groups]
        if any(spreads):
            rows.append(Row([name, *(spread.scaled(factor, exact=True) if spread else None for spread in spreads)]))
    return Table(
        "Costs",
        [names(), *(Column(group.label) for group in groups)],
        [Section(rows)],
        "Tokens and FLOPs are those of one sample with the most agents that validation has; training FLOPs are forward "
        "and backward pass, recomputation under gradient checkpointing included. Time per step is the median of the "
        "logged means; wall time counts validations.",
    )


def detail_table(groups: Sequence[Group]) -> Table:
    """Every metric at the best checkpoint, one row each."""
    measures = all_measures([run for group in groups for run in group.runs])
    best = Reading("best checkpoint", lambda run, measure: run.best.get(measure))
    rows = [Row([name, *(group.spread(_bind(best, name)) for group in groups)]) for name in measures]
    columns = [names(), *(Column(group.label) for group in groups)]
    return Table("All metrics at the best checkpoint", columns, [Section(rows)])


def _bind(reading: Reading, name: str) -> Read:
    return lambda run: reading.read(run, name)


def _last(name: str) -> Read:
    return lambda run: run.last.get(name)


def _row(group: Group, spreads: Sequence[Spread | None], lowest: set[int]) -> Row:
    count = max((len(spread.values) for spread in spreads if spread), default=0)
    return Row([group.label, count, *spreads], {column + NAME_COLUMNS for column in lowest})


def _lowest(spreads: Sequence[Sequence[Spread | None]], comparable: Sequence[bool]) -> set[tuple[int, int]]:
    """(row, column) of the lowest mean of every comparable column, where there is something to compare."""
    found = set()
    for column in (place for place, compares in enumerate(comparable) if compares):
        spread_of = {row: cells[column] for row, cells in enumerate(spreads)}
        means = {row: spread.mean for row, spread in spread_of.items() if spread is not None and not isnan(spread.mean)}
        if len(set(means.values())) > 1:
            lowest = min(means.values())
            found |= {(row, column) for row, mean in means.items() if mean == lowest}
    return found


def figure_rows(groups: Sequence[Group]) -> Iterator[dict[str, object]]:
    """Every metric at every reading and every cost, one row each, unrounded, machine-readable."""
    runs = [run for group in groups for run in group.runs]
    for group in groups:
        found = [
            (reading.name, name, group.spread(_bind(reading, name)))
            for reading in readings(runs)
            for name in all_measures(runs)
        ]
        costs = [(name, group.spread(read), factor) for name, read, factor in COSTS]
        found += [("", name, spread.scaled(factor)) for name, spread, factor in costs if spread]
        for reading_name, name, spread in found:
            if spread is not None:
                yield {
                    "group": group.label,
                    "seeds": " ".join(str(run.seed) for run in group.runs),
                    "at": reading_name,
                    "figure": name,
                    "n": len(spread.values),
                    "mean": spread.mean,
                    "std": spread.std,
                    "min": min(spread.values),
                    "max": max(spread.values),
                }
