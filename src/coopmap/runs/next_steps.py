"""The last lines of a finished run: paths of its plots, and what to do next."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from coopmap.config.overrides import as_argument

SAME_TOWN = """\
Validation frames come from other drives through the same town: these metrics
show how well it was learned, not how the model does on unseen streets."""


def print_next_steps(run: Path, data_root: str, is_town: bool) -> None:
    """Print pictures and commands, below the table of metrics.

    Args:
        run: folder of the run.
        data_root: of its data.
        is_town: the data is the synthetic town, whose splits share their streets.
    """
    if is_town:
        print(SAME_TOWN)
    print(f"\ncurves: {run / 'curves.html'}")
    if (matches := run / "matches.png").exists():
        print(f"matches: {matches}")
    print("\nnext:")
    for command in (*activation(), *next_commands(run, data_root)):
        print(f"  {command}")


def activation() -> list[str]:
    """The command that activates this Python environment, if it is not active."""
    folder = Path(sys.prefix) / "bin"
    on_path = str(folder) in os.environ.get("PATH", "").split(os.pathsep)
    return [] if on_path or sys.prefix == sys.base_prefix else [f"source {os.path.relpath(folder / 'activate')}"]


def next_commands(run: Path, data_root: str) -> list[str]:
    """Commands that evaluate every sample, infer one frame, and train the 4n-view baseline."""
    named = as_argument("run", str(run))
    commands = [f"python -m coopmap.evaluate {named}"]
    if (frame := _a_frame(Path(data_root))) is not None:
        commands.append(f"python -m coopmap.infer {named} {as_argument('frame', str(frame))} output=out")
    return [*commands, "python -m coopmap.train experiment=four_camera"]


def _a_frame(root: Path) -> Path | None:
    """``ROOT/SPLIT/SCENARIO/FRAME`` of a validation frame."""
    for split in ("test", "validate"):
        if files := sorted(root.glob(f"{split}/*/*/*.yaml")):
            return files[0].parents[1] / files[0].stem
    return None
