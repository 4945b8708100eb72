"""Noise levels of pose priors, the model's errors at each, and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coopmap.config.checks import ConfigError
from coopmap.evaluation.records import PAIR_ERRORS
from coopmap.report.numbers import Spread
from coopmap.report.tables import Column, Row, Section, Table, Value, names
from coopmap.runs.groups import Group
from coopmap.runs.reader import Run

SWEEPS = ("meters and degrees", "meters alone", "degrees alone")
SMALLEST_IN = {"trans_m": 1e-3, "rot_deg": 1e-3}
"""Below these errors of the priors, no ratio is reported."""
NO_PRIOR = "no prior"
COLUMNS = [
    names("noise (m, deg)"),
    *(
        Column(label, unit, group=group)
        for group, size in (("translation", "m"), ("rotation", "deg"))
        for label, unit in (("in", size), ("out", size), ("out / in", ""))
    ),
]


@dataclass(frozen=True)
class Level:
    """Standard deviations of the noise: along either horizontal axis, and in yaw."""

    trans_m: float
    rot_deg: float

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read ``meters/degrees``.

        Raises:
            ConfigError: the text cannot be read.
        """
        try:
            trans_m, rot_deg = map(float, text.split("/"))
        except ValueError:
            trans_m = rot_deg = math.nan
        if not all(math.isfinite(value) and value >= 0 for value in (trans_m, rot_deg)):
            raise ConfigError(f"levels={text}: expected meters/degrees, both at least 0, as in levels=0.5/1,2/4")
        return cls(trans_m, rot_deg)

    @property
    def sweeps(self) -> tuple[str, ...]:
        """The members of :data:`SWEEPS` that contain this level; zero noise is in all of them."""
        if self.trans_m == self.rot_deg == 0:
            return SWEEPS
        return (SWEEPS[0 if self.trans_m and self.rot_deg else 1 if self.trans_m else 2],)

    def __str__(self) -> str:
        return f"{self.trans_m:g}, {self.rot_deg:g}"


@dataclass(frozen=True)
class Measurement:
    """Mean errors over all pairs of agents, of one run at one level.

    Attributes:
        run: whose best checkpoint was evaluated.
        level: of noise; ``None`` without pose priors.
        given: errors of the pose priors, by the names of :data:`PAIR_ERRORS`; empty without.
        answered: errors of the predictions.
        samples, pairs: number of them.
    """

    run: Run
    level: Level | None
    given: Mapping[str, float]
    answered: Mapping[str, float]
    samples: int
    pairs: int

    def ratio(self, error: str) -> float | None:
        """Error out over error in; ``None`` where the error in is negligible."""
        given = self.given.get(error)
        return None if given is None or given < SMALLEST_IN[error] else self.answered[error] / given

    def row(self, group: str) -> dict[str, Any]:
        """Its row in ``priors.csv``."""
        level = self.level
        row = {
            "group": group,
            "run": str(self.run.path),
            "seed": self.run.seed,
            "trans_noise_m": "" if level is None else level.trans_m,
            "rot_noise_deg": "" if level is None else level.rot_deg,
        }
        for error in PAIR_ERRORS:
            row |= {f"in_{error}": self.given.get(error, math.nan), f"out_{error}": self.answered[error]}
            ratio = self.ratio(error)
            row[f"ratio_{error}"] = math.nan if ratio is None else ratio
        return {**row, "samples": self.samples, "pairs": self.pairs}


@dataclass(frozen=True)
class Outcome:
    """Errors of all runs of a group at one level; values are spreads over the runs.

    Attributes:
        level: of noise; ``None`` without pose priors.
        given, answered, ratio: by the names of :data:`PAIR_ERRORS`; ``None`` where undefined.
    """

    level: Level | None
    given: Mapping[str, Spread | None]
    answered: Mapping[str, Spread]
    ratio: Mapping[str, Spread | None]

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> Outcome:
        """Combine the runs' measurements of a level."""
        given: dict[str, Spread | None] = {}
        ratio: dict[str, Spread | None] = {}
        for error in PAIR_ERRORS:
            given[error] = _spread([each.given.get(error) for each in measurements])
            ratio[error] = _spread([each.ratio(error) for each in measurements])
        answered = {error: Spread(tuple(each.answered[error] for each in measurements)) for error in PAIR_ERRORS}
        return cls(measurements[0].level, given, answered, ratio)

    def row(self) -> Row:
        """Its row in the table; ratios below 1 are marked."""
        cells: list[Value] = [NO_PRIOR if self.level is None else str(self.level)]
        better = set()
        for error in PAIR_ERRORS:
            given, ratio = self.given[error], self.ratio[error]
            if given is not None:
                given = Spread((0.0,)) if given.mean < SMALLEST_IN[error] else given.scaled(1, exact=True)
            cells += [given, self.answered[error], ratio]
            if ratio is not None and ratio.mean < 1:
                better.add(len(cells) - 1)
        return Row(cells, better)


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = tuple(value for value in values if value is not None)
    return Spread(known) if known and len(known) == len(values) else None


def outcomes(measurements: Sequence[Measurement]) -> list[Outcome]:
    """Outcome of each level, in the order of measurement."""
    levels = dict.fromkeys(each.level for each in measurements)
    return [Outcome.of([each for each in measurements if each.level == level]) for level in levels]


def noise_table(group: Group, measured: Sequence[Outcome]) -> Table:
    """A row per level, series by series; the prediction without a prior ends the first."""
    sections: dict[str, list[Outcome]] = {}
    for outcome in measured:
        if outcome.level is not None:
            sections.setdefault(outcome.level.sweeps[0], []).append(outcome)
    for outcome in measured:
        if outcome.level is None:
            sections.setdefault(next(iter(sections), SWEEPS[0]), []).append(outcome)
    runs = ", ".join(f"{run.name} (seed {run.seed})" for run in group.runs)
    spread = "Mean ± sample standard deviation over runs. " if len(group.runs) > 1 else ""
    return Table(
        group.label,
        COLUMNS,
        [
            Section([each.row() for each in rows], title if len(sections) > 1 else "")
            for title, rows in sections.items()
        ],
        f"{spread}Errors of the relative poses between agents, mean over pairs: in, of the pose priors; out, of the "
        f"prediction. Ratios below 1 are marked. Measured: {runs}.",
    )
