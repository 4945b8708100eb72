"""How agents stand to one another, beside OPV2V's own figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from coopmap.checks.facts import AgentFacts

PERCENTILES = (5, 25, 50, 75, 95)

OPV2V_DISTANCE_M = (16.5, 24.9, 36.9, 46.9, 60.7)
"""Percentiles of the distance of pairs within 70 m. This and the two below: from the metadata of all 1,442 agent frames
(4 scenarios, 550 frames, 1,234 pairs) of OPV2V's Culver City test split (Xu et al., ICRA 2022)."""
OPV2V_HEADINGS = (0.205, 0.330, 0.465)
"""Share of those pairs with the same (below 45 degrees), crossing and opposite (above 135 degrees) headings."""
OPV2V_GPS = (0.036, 0.093, 0.078, 0.281)
"""Median and 95th percentile of the error of ``predicted_ego_pos``: meters, then degrees of yaw."""


def pairs_within(
    facts: Sequence[AgentFacts], range_m: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Distance (meters) and difference in heading (degrees) of all pairs of agents of a frame in range."""
    distances, headings = [], []
    for poses in _by_frame(facts):
        first, second = np.triu_indices(len(poses), k=1)
        distance = np.linalg.norm(poses[first, :3, 3] - poses[second, :3, 3], axis=1)
        forward = poses[:, :3, 2] / np.linalg.norm(poses[:, [0, 2], 2], axis=1)[:, None]
        cosine = (forward[first][:, [0, 2]] * forward[second][:, [0, 2]]).sum(axis=1)
        near = distance <= range_m
        distances.append(distance[near])
        headings.append(np.rad2deg(np.arccos(np.clip(cosine[near], -1, 1))))
    return np.concatenate([np.zeros(0), *distances]), np.concatenate([np.zeros(0), *headings])


def _by_frame(facts: Sequence[AgentFacts]) -> Iterator[Float[np.ndarray, "a 4 4"]]:
    frames = defaultdict(list)
    for item in facts:
        if item.pose is not None:
            frames[item.key.split, item.key.scenario, item.key.frame].append(item.pose)
    for poses in frames.values():
        yield np.stack(poses)


def heading_shares(headings: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Share of pairs with the same, crossing and opposite headings."""
    if not len(headings):
        return float("nan"), float("nan"), float("nan")
    same, opposite = float((headings < 45).mean()), float((headings > 135).mean())
    return same, 1 - same - opposite, opposite
