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


def log_to(file: Path | None) -> None:
    """Send the program's log to standard output and to a file; ranks above 0 only warn."""
    root = logging.getLogger("coopmap")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.WARNING if is_other_rank() else logging.INFO)
    root.propagate = False
    handlers: list[logging.Handler] = [_Stdout()]
    if file is not None and not is_other_rank():
        make_output_folder(file.parent)
        handlers.append(logging.FileHandler(file))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
