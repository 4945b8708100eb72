"""``coopmap cache``: write views ready to train on."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.main import run_entry_point
from coopmap.config.cache import CacheConfig


def cache_command(asked: CacheConfig, overrides: Sequence[str]) -> None:
    """Write what is missing, say what there is and how to use it."""
    from coopmap.config import load_config
    from coopmap.data.cache.command import fill_cache
    from coopmap.runs.logs import log_to

    log_to(None)
    print(fill_cache(asked, load_config(overrides).data))


def main() -> None:
    """Command line."""
    run_entry_point("cache")


if __name__ == "__main__":
    main()
