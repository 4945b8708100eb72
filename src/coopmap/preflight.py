"""``coopmap preflight``: what a run tries out before it begins, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.cli.main import run_entry_point
from coopmap.config import Config


def preflight(config: Config, overrides: Sequence[str] = ()) -> None:
    """Try out a run; nothing is written.

    Raises:
        ConfigError: the run would not work; names what to change.
    """
    from coopmap.runs.folder import handed_over
    from coopmap.runs.logs import log_to
    from coopmap.runs.resume import open_run
    from coopmap.runs.signals import stop_signals
    from coopmap.training.start import check_start

    log_to(None)
    with stop_signals():
        config, run = open_run(config, overrides)
        check_start(config, overrides)
        from coopmap.preflights.runner import Preflight
        from coopmap.training.run import build_learner

        log_to(None)  # Lightning, imported now, has set up logs of its own
        trying = Preflight(config)
        trying.check_machine()
        with handed_over(config):
            module, datamodule = build_learner(config, run)
            trying.try_out(run, None, module, datamodule)


def preflight_command(config: Config, overrides: list[str]) -> None:
    """Try out a run; exit status 2 when it would not work."""
    preflight(config, overrides)


def main() -> None:
    """Command line."""
    run_entry_point("preflight")


if __name__ == "__main__":
    main()
