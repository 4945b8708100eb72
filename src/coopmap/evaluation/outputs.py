"""The files of an evaluation, as far as a later one into the same folder has to know them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from coopmap.config.formats import EXPORTS

PARTIAL = "samples.partial.csv"
"""Grows while samples are measured; earlier results stay until all of them are."""
SHARES = "samples.rank*.csv"
"""The same of ranks above 0."""

_AGENT = r"-?\d+"
_RESULTS = re.compile(
    r"samples\.csv|pairs\.csv|risk_coverage\.csv|reliability\.csv|trajectories\.csv|summary\.json|metrics\.json"
    r"|report\.html|matches_(best|median|worst)\.png|(kitti|heal)/README\.txt"
    rf"|(tum|kitti)/[^/]+/{_AGENT}(_true)?\.txt|kitti/[^/]+/{_AGENT}_times\.txt"
    r"|colmap/[^/]+/(cameras|images|points3D)\.txt|heal/(train|validate|test|test_culvercity)\.json"
)
"""Everything that an evaluation writes, below its folder."""


def remove_results(folder: Path) -> None:
    """Delete the results of an earlier evaluation, and nothing else: not all of them would be written over."""
    exported = [file for name in EXPORTS for file in (folder / name).rglob("*")]
    for file in (*folder.iterdir(), *exported):
        if _RESULTS.fullmatch(file.relative_to(folder).as_posix()) and not file.is_dir():
            file.unlink()
            for place in file.relative_to(folder).parents[:-1]:
                with suppress(OSError):  # it holds something else
                    (folder / place).rmdir()
