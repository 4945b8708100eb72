"""The pairs of a frame's agents: the order of all columns and tensors of pairs."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def pair_ends(agents: int, device: torch.device | None = None) -> Int[Tensor, "2 p"]:
    """Both ends ``i < j`` of all pairs of so many agents, ordered 01, 02, ..., 12, ...; none of a single agent."""
    return torch.triu_indices(agents, agents, offset=1, device=device)
