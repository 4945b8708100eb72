"""Signs of pitch, roll and yaw, by the mounting of cameras and by the surfaces that LiDAR points hit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coopmap.checks.axes import FLIPS, cords_of, flipped, mounting
from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import Judgment, by_agent
from coopmap.checks.problems import FrameKey, Problem
from coopmap.config.data import DataConfig

SPREAD_M = 0.02
"""Mountings of one kind of car agree better than this."""
MUCH_SMALLER = 0.3
FLIP_GAIN = 0.05
"""More of the points that agree, or so much stronger edges, with another sign."""


def judge_mounting(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> set[FrameKey]:
    """Signs with which the cameras' mounting is the same on all cars and slopes; gives what has wrong ones."""
    known = [item for item in facts if item.pose is not None and item.rig is not None and not item.is_rsu]
    if len(known) < 2:
        return set()
    cords = np.stack([cords_of(item.pose, item.rig) for item in known if item.pose is not None and item.rig])
    as_recorded = mounting(cords)
    common = np.median(as_recorded, axis=0)
    gap = np.abs(as_recorded - common).max(axis=(1, 2, 3))
    slope = np.rad2deg(np.arcsin(np.abs(np.sin(np.deg2rad(cords[:, 0][:, [3, 5]]))).max()))
    result.notes["axes by mounting"] = (
        f"steepest slope {slope:.1f} deg; the mounting varies by {np.median(gap):.2g} m or rad as recorded"
        + ("; too flat to tell the signs of pitch and roll" if slope < 0.5 else "")
    )
    wrong: set[FrameKey] = set()
    for flip in FLIPS:
        turned = mounting(flipped(cords, flip))
        own_gap = np.abs(turned - np.median(turned, axis=0)).max(axis=(1, 2, 3))
        is_all = np.median(gap) > SPREAD_M and np.median(own_gap) < MUCH_SMALLER * np.median(gap)
        to_common = np.abs(turned - common).max(axis=(1, 2, 3))
        one_by_one = (gap > SPREAD_M) & (to_common < MUCH_SMALLER * gap)
        for item, is_wrong, before in zip(known, one_by_one, gap, strict=True):
            if (is_all or is_wrong) and item.key not in wrong:
                detail = (
                    f"with the other sign of {angle_of(flip)} the cameras are mounted alike in all frames; as "
                    f"recorded they differ by up to {before:.2f} m or rad"
                )
                result.problems.append(Problem(flip, item.path, detail, (item.key,), config.root))
                wrong.add(item.key)
        result.examined[flip] = {item.key for item in known}
    return wrong


def judge_flips(config: DataConfig, measured: Sequence[AgentFacts], known: set[FrameKey], result: Judgment) -> None:
    """Whether LiDAR points hit the surfaces in depth better with another sign."""
    gains = [
        ({flip: float(np.mean([item.flips[flip] - item.flips[""] for item in items])) for flip in FLIPS}, items)
        for items in by_agent([item for item in measured if item.flips])
    ]
    means = {flip: float(np.mean([gain[flip] for gain, _ in gains])) for flip in FLIPS}
    shown = ", ".join(f"{angle_of(flip)} {value:+.2f}" for flip, value in means.items())
    flat = "; no slopes, so the signs of pitch and roll do not matter here" if _is_flat(means) else ""
    result.notes["axes by LiDAR in depth"] = f"share of agreeing points with the other sign of {shown}{flat}"
    for gain, items in gains:
        best = max(gain, key=lambda flip: gain[flip])
        if gain[best] > FLIP_GAIN:
            detail = f"{gain[best]:.0%} more LiDAR points agree with depth if {angle_of(best)} has the other sign"
            result.problems += [
                Problem(best, item.path, detail, (item.key,), config.root) for item in items if item.key not in known
            ]


def angle_of(flip: str) -> str:
    """The angle whose sign is meant, as people call it."""
    return flip.partition("_")[0]


def _is_flat(gains: dict[str, float]) -> bool:
    return all(abs(gains[flip]) < 0.005 for flip in ("pitch_sign", "roll_sign"))
