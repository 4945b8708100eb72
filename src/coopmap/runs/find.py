"""Finds runs by ``latest``, a name or a folder."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from coopmap.config.checks import ConfigError
from coopmap.runs.folder import RunFolder

LATEST = "latest"
MAX_LISTED = 12
EMPTY = "is empty, as where a variable of the shell is not set; give"


def find_checkpoint(run: str | None, checkpoint: str | None, runs_root: str = "runs") -> Path:
    """The checkpoint to open: a file, or the best one of a run, falling back to its last.

    Args:
        run: see :func:`find_run`.
        checkpoint: file.
        runs_root: folder in which runs are looked up by name.

    Raises:
        ConfigError: not exactly one of them is given, there is no such run, or it has no checkpoint yet.
    """
    if (run is None) == (checkpoint is None):
        raise ConfigError("give either run=RUN or checkpoint=FILE")
    if run is None:
        if not checkpoint:
            raise ConfigError(f"checkpoint=: {EMPTY} the checkpoint file of a run")
        return Path(checkpoint)
    folder = find_run(run, runs_root)
    for file in (folder.best_checkpoint, folder.last_checkpoint):
        if file.is_file():
            return file
    raise ConfigError(f"run={run}: there is no checkpoint in {folder.path} yet")


def find_run(name: str, runs_root: str | Path = "runs", key: str = "run") -> RunFolder:
    """The run with a given name.

    Args:
        name: ``latest`` (the run with the newest checkpoint), a run's folder, the name of its folder,
            ``experiment/name``, or the name of an experiment that has one run.
        runs_root: folder in which names are looked up, as ``runs_root/experiment/name``.
        key: named in errors; may be empty.

    Raises:
        ConfigError: there is no such run, or several.
    """
    path, asked = Path(name), f"{key}={name}" if key else name or "''"
    if not name:
        raise ConfigError(f"{asked}: {EMPTY} {LATEST}, a run's name or its folder")
    if path.is_dir() and (is_run(path) or not list(_named(name, runs_root))):
        below = [] if is_run(path) else sorted({*filter(is_run, path.glob("*")), *runs_below(path)})
        if len(below) > 1:
            raise ConfigError(f"{asked}: holds {len(below)} runs; name one of them: {_listing(below)}")
        return RunFolder(below[0] if below else path)
    if path.is_file():
        raise ConfigError(f"{asked}: is a file; for a checkpoint use checkpoint={name}")
    if name == LATEST:
        return _latest(runs_root, asked)
    found = sorted(_named(name, runs_root))
    if len(found) > 1:
        raise ConfigError(f"{asked}: {len(found)} runs have this name: {_listing(found)}")
    if not found:
        raise ConfigError(f"{asked}: no such folder, and no run of that name{_nearest(name, runs_root)}")
    return RunFolder(found[0])


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir()


def runs_below(runs_root: str | Path) -> Iterator[Path]:
    """Folders of the runs, ``runs_root/experiment/name``."""
    return (folder for folder in Path(runs_root).glob("*/*") if is_run(folder))


def _named(name: str, runs_root: str | Path) -> Iterator[Path]:
    wanted = name.strip("/")
    for run in runs_below(runs_root):
        if wanted in (run.name, run.parent.name, f"{run.parent.name}/{run.name}"):
            yield run


def _latest(runs_root: str | Path, asked: str) -> RunFolder:
    checkpoints = (file for run in runs_below(runs_root) for file in run.glob("checkpoints/*.ckpt"))
    newest = max(checkpoints, key=lambda file: file.lstat().st_mtime, default=None)
    if newest is None:
        raise ConfigError(f"{asked}: no run below {runs_root} has a checkpoint yet")
    return RunFolder(newest.parents[1])


def _nearest(name: str, runs_root: str | Path) -> str:
    names = {text for run in runs_below(runs_root) for text in (run.name, f"{run.parent.name}/{run.name}")}
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f" below {runs_root}; did you mean {near[0]}?" if near else f" below {runs_root}"


def _listing(runs: list[Path]) -> str:
    shown = ", ".join(f"{run.parent.name}/{run.name}" for run in runs[:MAX_LISTED])
    return shown if len(runs) <= MAX_LISTED else f"{shown} and {len(runs) - MAX_LISTED} more"
