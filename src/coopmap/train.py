"""``coopmap train``: train and validate a model."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coopmap.cli.main import run_entry_point
from coopmap.config import Config

if TYPE_CHECKING:
    import lightning as L

    from coopmap.training.run import TrainingResult

log = logging.getLogger("coopmap.train")  # __name__ is __main__ on the command line


def train(config: Config, overrides: Sequence[str] = (), callbacks: Sequence[L.Callback] = ()) -> TrainingResult:
    """Run one training from its configuration.

    Args:
        config: from :func:`coopmap.load_config`.
        overrides: the command line that led to it, for the record.
        callbacks: further ones, called first.

    Raises:
        ConfigError: the run cannot start; nothing is left of it then.
    """
    from coopmap.runs.logs import log_to
    from coopmap.runs.resume import open_run
    from coopmap.runs.signals import stop_signals
    from coopmap.training.start import check_start

    started = time.monotonic()
    log_to(None)
    with stop_signals():
        config, run = open_run(config, overrides)
        check_start(config, overrides)  # before anything heavy is imported
        from coopmap.preflights.runner import Preflight
        from coopmap.training.run import run_training

        if not config.preflight.enabled:
            return run_training(config, run, overrides, callbacks, started)
        preflight = Preflight(config)
        preflight.check_machine()
        return run_training(config, run, overrides, callbacks, started, preflight.try_out)


def train_command(config: Config, overrides: list[str]) -> float | None:
    """Train; the best ``pose_trans_avg`` is what a sweep minimizes.

    Raises:
        NonFiniteError: the figures of the last or the best validation have a NaN.
    """
    result = train(config, overrides)
    from coopmap.training.run import check_figures

    check_figures(result)
    return result.summary.get("pose_trans_avg", {}).get("best")


def main() -> None:
    """Command line."""
    run_entry_point("train")


if __name__ == "__main__":
    main()
