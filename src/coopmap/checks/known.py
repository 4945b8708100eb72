"""What OPV2V itself lacks, however often it is downloaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coopmap.checks.problems import Problem
from coopmap.formats.pose_cache import LEFT_OUT

LACKS_A_CAMERA = "2021_09_09_13_20_58"
"""Scenario of OPV2V's training split with the images of three cameras; CoBEVT's instructions say to remove it."""
MISSING = ("missing_agent", "missing_image", "missing_lidar")
KNOWN = "OPV2V itself lacks it, the download is fine"


def mark_known(problems: Sequence[Problem]) -> list[Problem]:
    """Say of OPV2V's two known gaps that the download is fine; of a second camera that is missing there, nothing."""
    images = Counter(key for problem in problems if problem.kind == "missing_image" for key in problem.keys)
    scenario, frame = LEFT_OUT

    def is_known(problem: Problem) -> bool:
        path = Path(problem.path)
        if problem.kind == "missing_image" and LACKS_A_CAMERA in path.parts:
            return images[problem.keys[0]] == 1
        return problem.kind in MISSING and scenario in path.parts and path.name.startswith(frame)

    return [replace(p, detail=f"{p.detail}; {KNOWN}") if is_known(p) else p for p in problems]
