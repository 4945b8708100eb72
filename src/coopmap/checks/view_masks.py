"""Coverage, masks, rays and sizes of the views of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import by_split
from coopmap.checks.problems import Problem
from coopmap.config.data import DataConfig
from coopmap.geometry.rig import SLOTS

COVERAGE_WITHIN = 0.02
MIN_MASK = 0.05
MIN_SPARSE_MASK = 1 / 196
"""A pixel of each patch."""
SHARE_OF_POINTS = 0.5
"""Of a sweep's points at least so many give a pixel its depth: others hit what no camera sees, or share a pixel."""
MAX_ANGLE_DEG = 10.0


def judge_views(config: DataConfig, facts: Sequence[AgentFacts], depth_is_right: bool) -> Iterator[Problem]:
    """Coverage, masks, rays and sizes of the views of each split; of depth that is wrong nothing more is said."""
    for items in by_split([item for item in facts if item.views is not None]).values():
        folder = str(Path(config.root, items[0].key.folder))
        covered = float(np.mean([item.coverage for item in items]))
        valid = float(np.mean([item.valid for item in items]))
        least = float(np.mean([item.least_valid for item in items]))
        for name, value, limit in (("non_ambiguous", covered, MIN_MASK), ("valid", valid, least)):
            if value < limit and (depth_is_right or name != "valid"):
                yield Problem("masks", folder, f"mean of {name} is {value:.3f}, expected at least {limit:.2g}")
        if max(item.ray_defect or 0.0 for item in items) > 1e-3:
            yield Problem("rays", folder, "target rays are no unit vectors")
        angle = float(np.mean([item.angle_deg for item in items]))
        if angle > MAX_ANGLE_DEG and depth_is_right:
            yield Problem("rays", folder, f"content lies {angle:.1f} deg from nominal rays on average")
        yield from _judge_coverage(config, folder, covered, items)
        per_agent, size = expected_views(config)
        for item in items:
            if item.views != per_agent or item.view_size != (size or item.view_size):
                detail = f"{item.views} views of {item.view_size} per agent, expected {per_agent} of {size}"
                yield Problem("views", item.path, detail, (item.key,))


def least_valid(num_points: int, num_pixels: int) -> float:
    """Share of pixels that sparse depth has to give: of a sweep of few beams less than of dense depth."""
    return min(MIN_MASK, max(MIN_SPARSE_MASK, SHARE_OF_POINTS * num_points / num_pixels))


def expected_views(config: DataConfig) -> tuple[int, tuple[int, int] | None]:
    """Views per agent, and their ``(height, width)`` where the configuration says it outright."""
    if config.layout == "cameras":
        return len(SLOTS), (config.cameras.height, config.cameras.width)
    is_panorama = config.layout in ("panorama", "grouped", "warped")
    return 1, (config.panorama.height, config.panorama.width) if is_panorama else None


def _judge_coverage(config: DataConfig, folder: str, covered: float, items: Sequence[AgentFacts]) -> Iterator[Problem]:
    expected = [item.expected_coverage for item in items if item.expected_coverage is not None]
    if not expected:
        return
    predicted, panorama = float(np.mean(expected)), config.panorama
    surface = "infinite" if panorama.surface == "infinite" else f"{panorama.surface} {panorama.radius_m:g} m"
    rig = next(item.rig for item in items if item.rig is not None)
    aspect, wanted = rig.image_size[1] / rig.image_size[0], panorama.width / panorama.height
    if abs(covered - predicted) > COVERAGE_WITHIN and panorama.legacy_crop:
        detail = (
            f"crop: {covered:.3f} covered; whole images of this rig cover {predicted:.3f} with surface={surface}. "
            "data.panorama.legacy_crop=false shows all that the cars see"
        )
        yield Problem("crop", "data.panorama.legacy_crop", detail)
    elif abs(covered - predicted) > COVERAGE_WITHIN:
        detail = f"{covered:.3f} covered, but this rig predicts {predicted:.3f} with surface={surface}"
        yield Problem("coverage", folder, detail)
    elif abs(aspect / wanted - 1) < COVERAGE_WITHIN:
        detail = (
            f"crop: images are {rig.image_size[1]} x {rig.image_size[0]}, the panorama's aspect: they were cropped "
            f"before, and {covered:.3f} is covered"
        )
        yield Problem("crop", folder, detail)
