"""Mistakes of the user: one message and exit status 2."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.report.files import FULL_DISK
from coopmap.runs.signals import INTERRUPTED, Stopped

PLACES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)
"""A file where a folder is needed, a folder where a file is, no permission."""

log = logging.getLogger(__name__)

USER_ERRORS = (
    ("coopmap.data.opv2v.errors", "DataError"),
    ("coopmap.data.budget", "BadFrameBudgetError"),
    ("coopmap.training.module", "NonFiniteError"),
    ("coopmap.training.callbacks.stop_signal", "LoaderError"),
    ("lightning.fabric.utilities.exceptions", "MisconfigurationException"),
)


def user_errors() -> tuple[type[Exception], ...]:
    """Errors that the user can fix. A module that is not loaded cannot have raised any."""
    loaded = [getattr(sys.modules[module], name) for module, name in USER_ERRORS if module in sys.modules]
    return (ConfigError, *loaded)


@contextmanager
def user_errors_end_quietly() -> Iterator[None]:
    """Exit with only the message if the user can fix the error: configuration, data, weights, a full disk, a
    place that cannot be written to or read.

    The same after a stop signal, which has a status of its own.
    """
    try:
        yield
    except Stopped as stop:
        print(stop.reason, file=sys.stderr)
        raise SystemExit(stop.code) from None
    except KeyboardInterrupt:
        print("Ctrl-C: stopped", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if (message := user_message(error)) is None:
            raise
        log.debug("cause", exc_info=error)
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def user_message(error: Exception) -> str | None:
    """All that is to be said of an error that the user can fix; ``None`` of others, and where everything is wanted."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        return None
    if isinstance(error, OSError):
        return _of_a_place(error)
    return str(error) if isinstance(error, user_errors()) else None


def _of_a_place(error: OSError) -> str | None:
    """An error that other places or permissions would mend, in one line."""
    if error.errno in FULL_DISK:
        return no_space(error)
    if error.errno == errno.EFBIG and error.filename is not None:
        return f"{error.filename}: {error.strerror}; larger than its file system or ulimit -f allows"
    if error.errno in PLACES and error.filename is not None:
        return f"{error.filename}: {error.strerror}; choose another place, or change what is there"
    return None


def no_space(error: OSError) -> str:
    """A full disk in one line, with the device or, where that has no name, the place where it is mounted."""
    if not error.filename:
        return "no space left on the device"
    place = Path(str(error.filename)).absolute()
    mount = next(path for path in (place, *place.parents) if path.is_mount() or path.parent == path)
    return f"no space left on {mount} for {place}; files that were complete stay"
