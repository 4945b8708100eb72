"""``coopmap synth``: render synthetic streets, or a town and drives through it, in the layout of OPV2V."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point
from coopmap.config.synth import TownConfig


def synth_command(config: TownConfig) -> None:
    """Render."""
    from coopmap.synthetic import render_town

    render_town(config)


def main() -> None:
    """Command line."""
    run_entry_point("synth")


if __name__ == "__main__":
    main()
