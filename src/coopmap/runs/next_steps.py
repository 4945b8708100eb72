"""The last lines of a finished run: paths of its plots, and what to do next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Mapping
from operator import attrgetter
from pathlib import Path

from coopmap.config import Config, load_config
from coopmap.config.overrides import as_argument

SAME_TOWN = """\
Validation frames come from other drives through the same town: these metrics
show how well it was learned, not how the model does on unseen streets."""

OF_THE_RUN = ("machine", "data.root", "data.depth_root", "data.cache_root", "preset")
"""Keys that name a run's hardware and data, in the order in which they are left out where the others imply them."""
BASELINE = "python -m coopmap.train experiment=four_camera"
STAND_IN = "town"
"""Preset in place of those whose model cannot take the baseline's views."""


def print_next_steps(run: Path, config: Config) -> None:
    """Print pictures and commands, below the table of metrics.

    Args:
        run: folder of the run.
        config: of the run.
    """
    if config.data.town is not None and not config.data.town.per_scenario:
        print(SAME_TOWN)
    print(f"\ncurves: {run / 'curves.html'}")
    if (matches := run / "matches.png").exists():
        print(f"matches: {matches}")
    print("\nnext:")
    for command in (*activation(), *next_commands(run, config)):
        print(f"  {command}")


def activation() -> list[str]:
    """The command that activates this Python environment, if it is not active."""
    folder = Path(sys.prefix) / "bin"
    on_path = str(folder) in os.environ.get("PATH", "").split(os.pathsep)
    return [] if on_path or sys.prefix == sys.base_prefix else [f"source {os.path.relpath(folder / 'activate')}"]


def next_commands(run: Path, config: Config) -> list[str]:
    """Commands that evaluate every sample, infer one frame, and train the 4n-view baseline on the same data."""
    named = as_argument("run", str(run))
    commands = [f"python -m coopmap.evaluate {named}"]
    if (frame := _a_frame(Path(config.data.root))) is not None:
        commands.append(f"python -m coopmap.infer {named} {as_argument('frame', str(frame))} output=out")
    return [*commands, *_baseline(config)]


def _baseline(config: Config) -> list[str]:
    """The command that trains the baseline, with what it would not choose by itself; none if it cannot be composed."""
    wanted = dict(zip(OF_THE_RUN, attrgetter(*OF_THE_RUN)(config), strict=True))
    for preset in (config.preset, STAND_IN):
        wanted["preset"] = preset
        given = {key: f"{key}=null" if value is None else as_argument(key, value) for key, value in wanted.items()}
        if _composes_to(wanted, given.values()):
            break
    else:
        return []
    for key in OF_THE_RUN:
        fewer = {other: word for other, word in given.items() if other != key}
        if _composes_to(wanted, fewer.values()):
            given = fewer
    return [" ".join([BASELINE, *given.values()])]


def _composes_to(wanted: Mapping[str, str | None], words: Collection[str]) -> bool:
    """Whether the baseline with these further arguments, as words of a shell, has the wanted values."""
    try:
        composed = load_config(shlex.split(" ".join([BASELINE, *words]))[3:])
    except Exception:  # a preset without such views, or other files in conf/: no reason for a run to end badly
        return False
    return attrgetter(*wanted)(composed) == tuple(wanted.values())


def _a_frame(root: Path) -> Path | None:
    """``ROOT/SPLIT/SCENARIO/FRAME`` of a validation frame."""
    for split in ("test", "validate"):
        if files := sorted(root.glob(f"{split}/*/*/*.yaml")):
            return files[0].parents[1] / files[0].stem
    return None
