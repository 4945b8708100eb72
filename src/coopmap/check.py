"""``coopmap check``: the gate before a long run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coopmap.cli.main import run_entry_point
from coopmap.config.check import CheckConfig


def check_command(asked: CheckConfig, overrides: Sequence[str]) -> None:
    """Check, print the tables and what is wrong, say where the rest is; exit status 1 when something is wrong."""
    from coopmap.checks.runner import run_check
    from coopmap.checks.summary import Summary, problem_lines
    from coopmap.config import load_config
    from coopmap.report.terminal import print_table
    from coopmap.runs.logs import log_to

    log_to(None)
    checked = run_check(asked, load_config(overrides))
    summary = Summary(checked)
    for table in summary.tables:
        print_table(table)
    for line in problem_lines(checked):
        print(line)
    for file in summary.write(Path(asked.output).expanduser(), asked.fix_list):
        print(f"written to {file}")
    if not checked.ok:
        print(f"not ok: {len(checked.problems)} problems")
        raise SystemExit(1)
    print("ok")


def main() -> None:
    """Command line."""
    run_entry_point("check")


if __name__ == "__main__":
    main()
