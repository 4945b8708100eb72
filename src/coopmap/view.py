"""``coopmap view``: predictions of a split, frame by frame, in a browser."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.main import run_entry_point
from coopmap.config.view import ViewConfig


def view_command(asked: ViewConfig, overrides: Sequence[str]) -> None:
    """Print where, and serve until interrupted."""
    from coopmap.runs.logs import log_to
    from coopmap.viewing.command import start

    log_to(None)
    viewer = start(asked, overrides)
    print(f"{viewer.count} frames at http://127.0.0.1:{viewer.server.get_port()}/ (Ctrl-C ends it)", flush=True)
    try:
        viewer.server.sleep_forever()
    except KeyboardInterrupt:
        viewer.server.stop()


def main() -> None:
    """Command line."""
    run_entry_point("view")


if __name__ == "__main__":
    main()
