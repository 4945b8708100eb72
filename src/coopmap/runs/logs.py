"""Set-up of the program's log, and which process writes it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from coopmap.runs.outputs import make_output_folder


def is_other_rank() -> bool:
    """Whether this process is not the first of a distributed run, as far as its launcher's environment tells."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


class _Stdout(logging.StreamHandler):
    """Looks up standard output for every line, so that a live progress bar stays below the log."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


def log_to(file: Path | None, hold_back: bool = False) -> None:
    """Send the program's log to standard output and to a file; ranks above 0 only warn.

    Args:
        file: to append to.
        hold_back: until :func:`release_log`; what never is released is not written.
    """
    root = logging.getLogger("coopmap")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING if is_other_rank() else logging.INFO)
    root.propagate = False
    handlers: list[logging.Handler] = [_Stdout()]
    if file is not None and not is_other_rank():
        handlers.append(_LogFile(file, hold_back))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
        root.addHandler(handler)


def release_log() -> None:
    """Write what the log of a run has held back, and from now on every line at once."""
    for handler in logging.getLogger("coopmap").handlers:
        if isinstance(handler, _LogFile):
            handler.write_through()


class _LogFile(logging.FileHandler):
    """A file that cannot be written to costs its own lines, and one warning, but no run."""

    def __init__(self, file: Path, hold_back: bool) -> None:
        super().__init__(file, delay=True, encoding="utf-8")
        self._held_back: list[logging.LogRecord] | None = [] if hold_back else None
        if not hold_back:
            make_output_folder(file.parent)

    def emit(self, record: logging.LogRecord) -> None:
        if self._held_back is None:
            super().emit(record)
        else:
            self._held_back.append(record)

    def write_through(self) -> None:
        """Stop holding back."""
        records, self._held_back = self._held_back or [], None
        for record in records:
            self.emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Warn once."""
        print(f"{self.baseFilename}: cannot be written ({sys.exc_info()[1]}); the log goes on here", file=sys.stderr)
        logging.getLogger("coopmap").removeHandler(self)
