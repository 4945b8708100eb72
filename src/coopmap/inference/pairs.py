"""What is known of the pairs of agents in a result, and whose poses no pair supports."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch

from coopmap.inference.inputs import Views
from coopmap.inference.runner import Inference

SUPPORTING = 0.5
"""Confidence from which on a pair supports poses: more likely right than wrong."""


def agent_names(views: Views) -> tuple[str, ...]:
    """Agents of a frame; views of a folder are agents of their own."""
    return views.names if views.source is None else views.source.ref.agents


def describe_pairs(views: Views, result: Inference) -> list[dict[str, Any]] | None:
    """What ``cameras.json`` says of every pair; ``None`` for a model that does not match."""
    if (matches := result.prediction.matches) is None:
        return None
    sigma = matches.sigma[0]
    pairs = []
    for number, (i, j) in enumerate(combinations(agent_names(views), 2)):
        determined = not bool(matches.degenerate[0, number])
        pairs.append(
            {
                "agents": [i, j],
                "confidence": float(matches.confidence[0, number]),
                "covisibility": float(matches.covisibility[0, number]),
                "pose": matches.pose[0, number].double().tolist() if determined else None,
                "sigma_deg": torch.rad2deg(sigma[number, :3]).tolist() if determined else None,
                "sigma_m": sigma[number, 3:].tolist() if determined else None,
            }
        )
    return pairs


def agent_support(views: Views, result: Inference) -> dict[str, float] | None:
    """Confidence of the weakest pair in the surest chain of pairs from the first agent to each other one."""
    if (matches := result.prediction.matches) is None:
        return None
    return dict(zip(agent_names(views)[1:], matches.support[0, 1:].tolist(), strict=True))


def unsupported_agents(views: Views, result: Inference) -> list[str]:
    """Sentences about the agents that no chain of pairs of at least :data:`SUPPORTING` links to the first."""
    first, support = agent_names(views)[0], agent_support(views, result) or {}
    sentences = [
        f"no pair determines the pose of {name} relative to {first}: it is the regressed one"
        for name, value in support.items()
        if value == 0
    ]
    doubted = [f"{name} ({value:.2f})" for name, value in support.items() if 0 < value < SUPPORTING]
    if doubted:
        sentences.append(
            f"by the model's own confidence the poses of {', '.join(doubted)} relative to {first} are more likely off "
            "by over 2 m or 5 degrees than within; after a short training it may doubt good poses: calibration_error "
            "of coopmap evaluate says how far its confidence is from what comes true"
        )
    return sentences


def length(sigma: list[float] | None) -> float:
    """Standard deviation of all axes together; NaN for none."""
    return math.nan if sigma is None else math.hypot(*sigma)
