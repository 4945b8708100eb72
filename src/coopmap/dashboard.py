"""``coopmap dashboard``: runs at a glance, as a static page or as a W&B workspace."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point
from coopmap.config.dashboard import DashboardConfig


def dashboard_command(asked: DashboardConfig) -> None:
    """Write the page, or build the workspace; print where it is."""
    from coopmap.dashboards.command import build_page, build_workspace

    if asked.wandb is None:
        page, notes = build_page(asked)
        for note in notes:
            print(f"note: {note}")
        print(f"written to {page}")
    else:
        for place in build_workspace(asked):
            print(f"written to {place}")


def main() -> None:
    """Command line."""
    run_entry_point("dashboard")


if __name__ == "__main__":
    main()
