"""What is found to be wrong over many frames, and in what it was looked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey, Problem


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
