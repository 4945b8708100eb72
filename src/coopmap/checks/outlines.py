"""Outlines of sweeps in images: signs of angles and swapped cameras where there is no dense depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from coopmap.checks.axes import FLIPS
from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import MIN_PLACES, Judgment, at_distinct_places, by_agent, by_split, untold
from coopmap.checks.problems import Problem
from coopmap.checks.signs import FLIP_GAIN, angle_of
from coopmap.checks.swaps import is_certain, order_of, swaps_in_words
from coopmap.config.data import DataConfig

STRONG_GAIN, MIN_EVIDENCE = 0.15, 20
"""A strong gain at as many places of an agent as make it certain, or any at so many of a split."""


def judge_outlines(config: DataConfig, facts: Sequence[AgentFacts], result: Judgment) -> None:
    """Whether image edges lie at the sweep's outlines, or better with other signs; where there is no dense depth.

    Told for each agent where the evidence is strong, else for a whole split.
    """
    measured = [item for item in facts if item.outlines_match is not None]
    for items in by_agent(measured):
        for kind, detail in _outline_verdicts(_evidence(items), STRONG_GAIN, MIN_PLACES):
            result.problems += [Problem(kind, item.path, detail, (item.key,), config.root) for item in items]
    for kind in (*FLIPS, "cameras_swapped"):
        result.examined[kind] |= {item.key for item in measured}
    flagged = {key for problem in result.problems for key in problem.keys}
    for split, items in by_split(measured).items():
        evidence = _evidence(items)
        result.notes[f"axes by LiDAR in images, {split}"] = _strengths(evidence) + untold(items, evidence)
        folder = str(Path(config.root, items[0].key.folder))
        rest = [item for item in evidence if item.key not in flagged]
        result.problems += [
            Problem(kind, folder, detail) for kind, detail in _outline_verdicts(rest, FLIP_GAIN, MIN_EVIDENCE)
        ]


def _strengths(evidence: Sequence[AgentFacts]) -> str:
    """How well edges lie at outlines, as recorded and with other signs."""
    if not evidence:
        return "no frame in which every camera sees enough outlines"
    strength = _gains(evidence, lambda item: item.flips[""]).mean()
    flips = {flip: _flip_gains(evidence, flip).mean() for flip in FLIPS}
    shown = ", ".join(f"{angle_of(flip)} {gain:+.2f}" for flip, gain in flips.items())
    return f"edges at outlines {strength:+.2f} (0 = chance); with the other sign of {shown}"


def _evidence(items: Sequence[AgentFacts]) -> list[AgentFacts]:
    """Frames that are independent, and in which every camera sees enough."""
    known = [item for item in items if item.outlines_match is not None and np.isfinite(item.outlines_match).all()]
    return at_distinct_places(known)


def _outline_verdicts(evidence: Sequence[AgentFacts], least: float, number: int) -> Iterator[tuple[str, str]]:
    """Kinds and details of what fits better than what is recorded."""
    if len(evidence) < number:
        return
    flips = {flip: _flip_gains(evidence, flip) for flip in FLIPS}
    best = max(flips, key=lambda flip: flips[flip].mean())
    if is_certain(flips[best], least, number):
        detail = f"image edges at outlines of the sweep are {flips[best].mean():.2f} stronger with the other sign"
        yield best, detail
    order, gains = order_of([item.outlines_match for item in evidence if item.outlines_match is not None])
    if is_certain(gains, least, number):
        yield "cameras_swapped", swaps_in_words(order, "the LiDAR in")


def _flip_gains(items: Sequence[AgentFacts], flip: str) -> np.ndarray:
    return _gains(items, lambda item: item.flips[flip] - item.flips[""])


def _gains(items: Sequence[AgentFacts], value: Callable[[AgentFacts], float]) -> np.ndarray:
    gains = np.array([value(item) for item in items])
    return gains[np.isfinite(gains)] if np.isfinite(gains).any() else np.zeros(1)
