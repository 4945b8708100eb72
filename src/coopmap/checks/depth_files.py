"""What files of dense depth hold, and sweeps that do not fit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import Judgment
from coopmap.checks.problems import FrameKey, Problem
from coopmap.checks.signs import judge_flips
from coopmap.config.data import DataConfig
from coopmap.data.depth_probe import TRUSTED_SHARE

MISMATCH_BELOW = 0.85
"""A sweep of another frame has less than this share of the points that agree in an ordinary frame of the data."""
COPY_BELOW = 0.95
"""The same, of a sweep that comes twice."""


def judge_depth(
    config: DataConfig, facts: Sequence[AgentFacts], kind: str, known: set[FrameKey], result: Judgment
) -> None:
    """Kind and unit of dense depth, and sweeps that do not fit it."""
    measured = [item for item in facts if item.scale is not None]
    trusted = [item for item in measured if item.scale and item.scale.share >= TRUSTED_SHARE]
    if not measured:
        result.notes["depth against LiDAR"] = "no sweeps beside dense depth: kind and unit unknown"
        return
    root = str(Path(config.depth_root or config.root).expanduser())
    usual = float(np.median([item.scale.share for item in trusted if item.scale])) if trusted else TRUSTED_SHARE
    names = {"z": "along the optical axis (z)", "ray": "range along the ray"}
    kinds = {item.scale.kind for item in trusted if item.scale}
    units = {item.scale.unit for item in trusted if item.scale}
    result.notes["depth against LiDAR"] = (
        f"files hold {' and '.join(names[found] for found in sorted(kinds))} in {' and '.join(sorted(units))}; "
        f"{usual:.0%} of the points agree within 5 %"
    )
    for item in trusted:
        assert item.scale is not None
        folder = str(Path(root, *item.key.above(1), item.key.frame))
        if item.scale.kind != kind:
            detail = f"data.depth.kind={kind}, but by the LiDAR the files hold {names[item.scale.kind]}"
            result.problems.append(Problem("depth_kind", folder, detail, (item.key,), root))
        if item.scale.unit != "meters":
            detail = f"by the LiDAR the files hold {item.scale.unit} ({item.scale.factor:.4g} per meter)"
            result.problems.append(Problem("depth_unit", folder, detail, (item.key,), root))
    for name in ("depth_kind", "depth_unit"):
        result.examined[name] = {item.key for item in trusted}
    judge_flips(config, measured, known, result)
    flagged = known | {key for problem in result.problems for key in problem.keys}
    copies = Counter(item.sweep_content for item in measured)
    for item in measured:
        assert item.scale is not None
        limit = MISMATCH_BELOW if copies[item.sweep_content] == 1 else COPY_BELOW
        if item.scale.share < limit * usual and item.key not in flagged:
            path = str(Path(item.path).with_suffix(".pcd"))
            detail = f"{item.scale.share:.0%} of its points agree with depth, {usual:.0%} are usual"
            result.problems.append(Problem("lidar_mismatch", path, detail, (item.key,), config.root))
    result.examined["lidar_mismatch"] = {item.key for item in measured}
