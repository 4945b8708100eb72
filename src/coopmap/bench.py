"""``coopmap bench NAME``: measure speed, memory, or the gain from pose priors."""

from __future__ import annotations

from coopmap.cli.main import run_entry_point


def main() -> None:
    """Command line."""
    run_entry_point("bench")


if __name__ == "__main__":
    main()
