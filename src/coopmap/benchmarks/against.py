"""The benchmark of the data beside that of another revision of the program (``against=REVISION``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coopmap.benchmarks.options import DataOptions
from coopmap.benchmarks.rendered import render_or_find
from coopmap.benchmarks.report import Report, table
from coopmap.config.checks import ConfigError

ROUNDS = 2
"""How often the two take turns; the fastest counts."""

COSTS = {
    "what": "what",
    "ms": "CPU (ms)",
    "there": "there (ms)",
    "ratio": "ratio",
    "floor": "floor",
    "floor_ms": "floor (ms)",
    "over_floor": "over the floor",
    "limit": "at most",
}


def compare(options: DataOptions, overrides: Sequence[str] = ()) -> Report:
    """Costs of samples of this revision and of ``options.against``, measured in turn on the same data.

    Raises:
        ConfigError: this is no git checkout, or there is no such revision.
    """
    assert options.against is not None
    with worktree(options.against) as tree, render_or_find(overrides) as (config, source):
        places = []
        if source != config.root:  # rendered for the purpose
            places = [f"data.{key}={getattr(config, key)}" for key in ("root", "depth_root", "communication_range_m")]
        here, there = Path(__file__).parents[2], tree / "src"
        best: dict[Path, dict[str, dict[str, Any]]] = {here: {}, there: {}}
        for _ in range(ROUNDS):
            for code, known in best.items():
                for what, row in _costs(code, options, [*overrides, *places]).items():
                    known[what] = row | {key: min(row[key], known.get(what, row)[key]) for key in ("ms", "floor_ms")}
    rows = [_beside(row, best[there][what]) for what, row in best[here].items() if what in best[there]]
    return Report({"data": source, "there": options.against}, [table("Cost of samples", COSTS, rows)])


def _beside(here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """A row of this revision, with the cost in the other and the lower of the two floors."""
    floor_ms = min(here["floor_ms"], there["floor_ms"])
    compared = {"there": there["ms"], "ratio": here["ms"] / there["ms"]}
    return {**here, **compared, "floor_ms": floor_ms, "over_floor": here["ms"] / floor_ms}


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """A checkout of a revision beside this one, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="coopmap-revision-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), revision)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", "-C", str(Path(__file__).parent), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"against: needs a git checkout and one of its revisions ({done.stderr.strip()})")


def _costs(code: Path, options: DataOptions, overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of the table of costs by name, of the program in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "costs.json"
        asked = [f"repeats={options.repeats}", f"split={options.split}", "samples=2", f"output={output}", *overrides]
        command = [sys.executable, "-m", "coopmap.bench", "data", *asked]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(code)}, stdout=subprocess.DEVNULL)
        rows = json.loads(output.read_text())["tables"]["Cost of samples"]
    return {row["what"]: row for row in rows}
