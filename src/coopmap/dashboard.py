"""``coopmap dashboard``: runs at a glance, as a static page or as a W&B workspace."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point
from coopmap.config.dashboard import DashboardConfig


def dashboard_command(asked: DashboardConfig) -> None:
    """Write the page, or build the workspace; print where it is."""
    from coopmap.dashboards.command import build_page, build_workspace

    places = build_page(asked) if asked.wandb is None else build_workspace(asked)
    for place in places:
        print(f"written to {place}")


def main() -> None:
    """Command line."""
    run_entry_point("dashboard")


if __name__ == "__main__":
    main()
