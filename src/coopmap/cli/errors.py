"""Mistakes of the user: one message and exit status 2."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from coopmap.config.checks import ConfigError

log = logging.getLogger(__name__)

USER_ERRORS = (
    ("coopmap.data.opv2v.errors", "DataError"),
    ("coopmap.data.budget", "BadFrameBudgetError"),
    ("coopmap.training.module", "NonFiniteError"),
    ("lightning.fabric.utilities.exceptions", "MisconfigurationException"),
)


def user_errors() -> tuple[type[Exception], ...]:
    """Errors that the user can fix. A module that is not loaded cannot have raised any."""
    loaded = [getattr(sys.modules[module], name) for module, name in USER_ERRORS if module in sys.modules]
    return (ConfigError, *loaded)


@contextmanager
def user_errors_end_quietly() -> Iterator[None]:
    """Exit with only the message if the user can fix the error: configuration, data, weights."""
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not isinstance(error, user_errors()):
            raise
        log.debug("cause", exc_info=error)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
