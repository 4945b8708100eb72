"""Table of the study (PROTOCOL.md) from evaluations: medians, success, intervals, and differences to the first arm.

    python experiments/study/table.py "alignment=RUN/evaluation_test" "regression=RUN/evaluation_test" ...

Each argument names an arm and a folder that `coopmap evaluate` has written. Several, with commas between them, are put
together; of one followed by ``@PATTERN``, a regular expression, only scenarios whose names it matches count. Rows
`mean` (the training mean) and `bound` (exact correspondences, and either half of them) are taken from the first arm's
evaluation where it has them. With ``streets=PATTERN`` in front, only such scenarios count in any arm.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np

from coopmap.evaluation.statistics import LEVEL, RESAMPLES, clusters, summarize
from coopmap.report.tables import Column, Row, Section, Table

COVISIBLE = 0.2
SUCCESS_M, SUCCESS_DEG = (1, 2, 3), 5
FURTHER = {
    "mean": "training_mean",
    "own matches, true ranges": "bound_own_matches",
    "true matches, own ranges": "bound_own_ranges",
    "bound": "bound",
}
"""Rows from the first arm's evaluation, and what the names of their columns begin with."""

Pairs = dict[tuple[str, ...], dict[str, float]]


def read_arm(folders: str, streets: str, prefix: str = "") -> Pairs:
    """Pairs of one or more evaluations, as the command line names them."""
    pairs: Pairs = {}
    for place in folders.split(","):
        folder, _, pattern = place.partition("@")
        found = read_pairs(Path(folder), pattern, prefix)
        pairs |= {key: pair for key, pair in found.items() if re.search(streets, key[0])}
    return pairs


def read_pairs(folder: Path, streets: str, prefix: str = "") -> Pairs:
    """Errors and co-visibility of every pair of an evaluation, by scenario, frame and agents."""
    with (folder / "pairs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if re.search(streets, row["scenario"])]
    if not rows or f"{prefix}trans_m" not in rows[0]:
        return {}
    return {
        (row["scenario"], row["frame"], row["agent_i"], row["agent_j"]): {
            "trans_m": float(row[f"{prefix}trans_m"] or "nan"),
            "rot_deg": float(row[f"{prefix}rot_deg"] or "nan"),
            "covisibility": float(row["covisibility"] or "nan"),
        }
        for row in rows
    }


def measure(pairs: Pairs) -> dict[str, str | int]:
    """One row: medians with intervals, and shares of success; a pair without an answer is no success."""
    scenario = [key[0] for key in pairs]
    cluster, _ = clusters(scenario, list(pairs))
    meters, degrees = (np.array([pair[name] for pair in pairs.values()]) for name in ("trans_m", "rot_deg"))
    row: dict[str, str | int] = {"pairs": len(pairs)}
    for name, values in (("m", meters), ("deg", degrees)):
        found = summarize(values, cluster)
        low, high = found["median_ci95"] or (float("nan"),) * 2  # type: ignore[misc]
        row[name] = f"{found['median']:.2f} ({low:.2f} to {high:.2f})"
    for limit in SUCCESS_M:
        row[f"< {limit} m"] = f"{np.mean((meters < limit) & (degrees < SUCCESS_DEG)):.0%}"
    return row


def difference(first: Pairs, arm: Pairs) -> str:
    """Median of an arm minus that of the first, meters, over the pairs of both; streets resampled together."""
    keys = sorted(arm.keys() & first.keys())
    if not keys:
        return ""
    cluster, _ = clusters([key[0] for key in keys], keys)
    errors = np.array([[arm[key]["trans_m"], first[key]["trans_m"]] for key in keys])
    members = [np.flatnonzero(cluster == number) for number in range(cluster.max() + 1)]
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])
        medians = np.nanmedian(errors[chosen], axis=0)
        resampled.append(medians[0] - medians[1])
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    medians = np.nanmedian(errors, axis=0)
    decided = (low > 0 or high < 0) and abs(medians[0] - medians[1]) >= 0.1 * medians.max()
    return f"{medians[0] - medians[1]:+.2f} ({low:+.2f} to {high:+.2f}){'' if decided else ', undecided'}"


def main() -> None:
    """Print both tables as Markdown."""
    if not sys.argv[1:] or any("=" not in argument for argument in sys.argv[1:]):
        sys.exit(__doc__)
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    streets = named.pop("streets", "")
    arms = {name: read_arm(folders, streets) for name, folders in named.items()}
    first = next(iter(named))
    whose = f" ({first})" if len(named) > 1 else ""
    further = {name + whose: read_arm(named[first], streets, f"{prefix}_") for name, prefix in FURTHER.items()}
    arms |= {name: pairs for name, pairs in further.items() if pairs}
    for title, limit in ((f"co-visibility above {COVISIBLE}", COVISIBLE), ("all pairs", -1.0)):
        chosen = {
            name: {key: pair for key, pair in pairs.items() if limit < 0 or pair["covisibility"] > limit}
            for name, pairs in arms.items()
        }
        rows = [
            {
                "arm": name,
                **measure(pairs),
                "more than the first (m)": difference(chosen[first], pairs) if name != first else "",
            }
            for name, pairs in chosen.items()
            if pairs
        ]
        names = list(rows[0])
        columns = [Column(name, align="left" if name == "arm" else "right") for name in names]
        body = [Row([row[name] for name in names]) for row in rows]
        print(Table(title, columns, [Section(body)]).markdown())


if __name__ == "__main__":
    main()
