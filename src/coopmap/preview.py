"""``coopmap preview``: samples of a data set as pages to look at."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.main import run_entry_point
from coopmap.config.preview import PreviewConfig


def preview_command(asked: PreviewConfig, overrides: Sequence[str]) -> None:
    """Write the pages, say where they are."""
    from coopmap.config import load_config
    from coopmap.previews.command import write_previews
    from coopmap.runs.logs import log_to

    log_to(None)
    print(f"written to {write_previews(asked, load_config(list(overrides)))}")


def main() -> None:
    """Command line."""
    run_entry_point("preview")


if __name__ == "__main__":
    main()
