"""``coopmap plan``: memory and time of a run before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coopmap.cli.main import run_entry_point
from coopmap.config.plan import PlanConfig


def plan_command(asked: PlanConfig, overrides: Sequence[str]) -> None:
    """Print the plan, and write it for scripts."""
    from coopmap.config import load_config
    from coopmap.planning.gpus import gpus_for
    from coopmap.planning.plan import make_plan
    from coopmap.planning.show import show
    from coopmap.report.files import write_json

    plan = make_plan(asked, overrides, gpus_for(load_config(overrides), asked), print)
    show(plan)
    if asked.output is not None:
        write_json(plan.record(), Path(asked.output).expanduser())
        print(f"written to {asked.output}")


def main() -> None:
    """Command line."""
    run_entry_point("plan")


if __name__ == "__main__":
    main()
