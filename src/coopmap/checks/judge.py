"""Verdicts that take many frames: what depth means, signs of angles, swapped cameras."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coopmap.checks.depth_files import judge_depth
from coopmap.checks.facts import AgentFacts
from coopmap.checks.judgment import Judgment
from coopmap.checks.outlines import judge_outlines
from coopmap.checks.problems import FrameKey
from coopmap.checks.signs import judge_mounting
from coopmap.checks.swaps import judge_cameras
from coopmap.config.data import DataConfig


def judge(
    config: DataConfig, facts: Sequence[AgentFacts], depth_kind: str, explained: Collection[FrameKey]
) -> Judgment:
    """All verdicts on agents in frames.

    Args:
        config: of the data.
        facts: of all agents in frames.
        depth_kind: what dense depth is taken for; empty without any.
        explained: what has been found wrong already; that its sweep does not fit is no news.
    """
    result = Judgment()
    known = judge_mounting(config, facts, result) | set(explained)
    judge_cameras(config, facts, result)
    if depth_kind:
        judge_depth(config, facts, depth_kind, known, result)
    judge_outlines(config, facts, result)
    return result
