"""What is found to be wrong over many frames, and in what it was looked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey, Problem

PLACES_APART_M = 5.0
"""So far apart, two frames of a car resemble one another hardly more than those of two cars on one street. On synthetic
streets, gains of wrong orders of cameras correlate by 0.4 to 0.6 there, by -0.1 to 0.6 among cars of a street, and by
0.7 and more where a car stands."""
MIN_PLACES = 3
"""Of so many places something is told of one agent."""


@dataclass
class Judgment:
    """Problems, and what they were looked for in.

    Attributes:
        problems: found.
        examined: for each kind, the agents in frames that could have had it.
        notes: what could be told about axes, depth and cameras, and from what.
    """

    problems: list[Problem] = field(default_factory=list)
    examined: dict[str, set[FrameKey]] = field(default_factory=lambda: defaultdict(set))
    notes: dict[str, str] = field(default_factory=dict)


def by_split(items: Sequence[AgentFacts]) -> dict[str, list[AgentFacts]]:
    """Agents in frames, by split."""
    found: dict[str, list[AgentFacts]] = defaultdict(list)
    for item in items:
        found[item.key.split].append(item)
    return found


def by_agent(items: Sequence[AgentFacts]) -> list[list[AgentFacts]]:
    """The frames of each agent of each scenario."""
    found: dict[tuple[str, ...], list[AgentFacts]] = defaultdict(list)
    for item in items:
        found[item.key.above(1)].append(item)
    return list(found.values())


def at_distinct_places(items: Sequence[AgentFacts]) -> list[AgentFacts]:
    """Of the frames of each agent those that are independent: of a standing car, which repeats one scene, the first."""
    kept: list[AgentFacts] = []
    for frames in by_agent(items):
        places: list[np.ndarray] = []
        for item in frames:
            assert item.pose is not None  # what was compared was read
            here = item.pose[:3, 3]
            if all(np.linalg.norm(here - other) >= PLACES_APART_M for other in places):
                places.append(here)
                kept.append(item)
    return kept


def untold(items: Sequence[AgentFacts], evidence: Sequence[AgentFacts]) -> str:
    """How many agents have too little evidence for a verdict of their own; empty if none."""
    known = Counter(item.key.above(1) for item in evidence)
    agents = {item.key.above(1) for item in items}
    few = sum(known[agent] < MIN_PLACES for agent in agents)
    reason = f"they were measured at fewer than {MIN_PLACES} places {PLACES_APART_M:g} m apart"
    return f"; nothing could be told of {few} of {len(agents)} agents by themselves: {reason}" if few else ""
