"""Join streets of several roots into one, by hard links, so that a style can be left out of training.

    python experiments/study/join_streets.py OUT=leave_out_style ROOT [ROOT ...]

Scenarios are named ``ROOT_STYLE_SCENARIO``. Those of the style are left out of ``train`` and ``validate``; ``test`` has
them all. Dense depth is taken from ``ROOT_depth`` to ``OUT_depth``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def link_folder(source: Path, target: Path) -> None:
    """Hard links to all files below a folder."""
    shutil.copytree(source, target, copy_function=os.link)


def style_of(scenario: Path) -> str:
    """As the renderer has recorded it."""
    found = re.search(r"style: (\w+)", (scenario / "data_protocol.yaml").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{scenario}/data_protocol.yaml names no style: not of coopmap synth towns=per_scenario")
    return found[1]


def join(out: Path, left_out: str, roots: Sequence[Path]) -> dict[str, int]:
    """Link everything; the number of scenarios by split."""
    count = {"train": 0, "validate": 0, "test": 0}
    for root in roots:
        for split in count:
            for scenario in sorted(path for path in (root / split).glob("*") if path.is_dir()):
                style = style_of(scenario)
                if split != "test" and style == left_out:
                    continue
                name = f"{root.name}_{style}_{scenario.name}"
                link_folder(scenario, out / split / name)
                link_folder(beside(root) / split / scenario.name, beside(out) / split / name)
                count[split] += 1
    shutil.copy(roots[0] / "town.yaml", out)
    return count


def beside(root: Path) -> Path:
    """Where the dense depth is."""
    return root.with_name(f"{root.name}_depth")


if __name__ == "__main__":
    if len(sys.argv) < 3 or "=" not in sys.argv[1]:
        raise SystemExit(__doc__)
    place, style = sys.argv[1].split("=", 1)
    print(join(Path(place), style, [Path(argument) for argument in sys.argv[2:]]))
