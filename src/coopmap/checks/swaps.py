"""Images, or depth, of one camera under the name of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coopmap.checks.axes import best_assignment
from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import MIN_PLACES, Judgment, at_distinct_places, by_agent, by_split, untold
from coopmap.checks.problems import Problem
from coopmap.checks.signs import FLIP_GAIN
from coopmap.config.data import DataConfig
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT, SLOTS

SWAP_GAIN = 0.05
SIGMAS = 4.0
"""A gain is certain by so many standard errors. Steps in dense depth are told more easily than outlines of sweeps."""


def judge_cameras(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> None:
    """Whether images show what the depth of their own camera has; if not, the LiDAR tells which of the two is wrong.

    Told for each agent that the LiDAR or several places agree on; of agents at few places, for a split as a whole.
    """
    matched = [item for item in facts if item.match is not None]
    root = str(Path(config.depth_root or config.root).expanduser())
    known: list[AgentFacts] = []
    few: list[AgentFacts] = []
    for items in by_agent(matched):
        evidence = at_distinct_places(items)
        known += evidence
        swap = _swap_of(evidence)
        if swap.is_depth:
            for item in items:
                path = str(Path(root, *item.key.above(1), item.key.frame))
                result.problems.append(Problem("depth_swapped", path, swap.detail, (item.key,), root))
        elif swap.is_certain:
            for item in items:
                result.problems.append(Problem("cameras_swapped", item.path, swap.detail, (item.key,), config.root))
        elif len(evidence) < MIN_PLACES:
            few += evidence
    for items in by_split(few).values():
        swap = _swap_of(items)
        if swap.is_certain:
            folder = str(Path(config.root, items[0].key.folder))
            result.problems.append(Problem("cameras_swapped", folder, swap.detail))
    result.examined["cameras_swapped"] |= {item.key for item in facts if item.rig is not None}
    result.examined["depth_swapped"] = {item.key for item in matched}
    if matched:
        rows = [np.diag(item.match).mean() for item in matched if item.match is not None]
        result.notes["images against depth"] = (
            f"edges correlate by {np.mean(rows):.2f} with steps in depth{untold(matched, known)}"
        )


@dataclass(frozen=True)
class Swap:
    """Which camera's depth the images of some frames fit best.

    Attributes:
        detail: in words.
        is_certain: they fit it better than their own at one place as at another: a blank facade is no swap.
        is_depth: the LiDAR says that the depth of these frames belongs to other cameras.
    """

    detail: str
    is_certain: bool
    is_depth: bool


def _swap_of(items: Sequence[AgentFacts]) -> Swap:
    order, gains = order_of([item.match for item in items if item.match is not None])
    shares = [item.swapped_share - item.scale.share for item in items if item.swapped_share and item.scale]
    is_depth = float(gains.mean()) > SWAP_GAIN and bool(shares) and float(np.mean(shares)) > FLIP_GAIN
    return Swap(swaps_in_words(order, "depth of"), is_certain(gains, SWAP_GAIN, MIN_PLACES), is_depth)


def order_of(matches: Sequence[np.ndarray]) -> tuple[tuple[int, ...], np.ndarray]:
    """Which camera each image fits best over all frames, and how much better than its own in each."""
    stacked = np.stack(matches)
    order, _ = best_assignment(stacked.mean(axis=0))
    rows = np.arange(len(order))
    return order, (stacked[:, rows, order] - stacked[:, rows, rows]).mean(axis=1)


def swaps_in_words(order: Sequence[int], what: str) -> str:
    """Which camera's data (``what``) each image fits that does not fit its own."""
    pairs = [
        f"images camera{OPV2V_CAMERA_OF_SLOT[image]} ({SLOTS[image]}) fit {what} camera{OPV2V_CAMERA_OF_SLOT[camera]}"
        for image, camera in enumerate(order)
        if image != camera
    ]
    return "; ".join(pairs)


def is_certain(gains: np.ndarray, least: float, number: int) -> bool:
    """Whether there are so many gains, of more than the least on average and by :data:`SIGMAS` standard errors."""
    if len(gains) < number:
        return False
    mean = float(gains.mean())
    return mean > least and mean > SIGMAS * float(gains.std(ddof=1)) / np.sqrt(len(gains))
