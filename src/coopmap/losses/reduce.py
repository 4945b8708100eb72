"""Reductions without host synchronization: masks become weights, no data-dependent shapes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def weighted_mean(
    values: Float[Tensor, "..."], weights: Float[Tensor, "..."], dim: int | tuple[int, ...]
) -> Float[Tensor, "..."]:
    """Mean over ``dim``; 0, still attached to the graph, where all weights are 0."""
    total = weights.sum(dim)
    return (values * weights).sum(dim) / torch.where(total > 0, total, 1.0)


def mean_of_sums(sums: Float[Tensor, "b v"], total: Float[Tensor, "b v"]) -> Float[Tensor, " v"]:
    """:func:`weighted_mean` over samples and pixels, from the sums of each sample's views."""
    total = total.sum(dim=0)
    return sums.sum(dim=0) / torch.where(total > 0, total, 1.0)


def lowest_share_weights(
    values: Float[Tensor, "b v h w"],
    valid: Bool[Tensor, "b v h w"],
    share: Float[Tensor, " b"],
    least: float = 0.0,
) -> Float[Tensor, "b v h w"]:
    """Weights that keep the lowest ``share`` of each view's valid values, rounded down to whole pixels.

    Ties at the threshold share the remaining weight equally, so the weighted mean is exactly that of the sorted
    prefix (upstream ``keep_bottom_n_percent``). Carries no gradient.

    Args:
        values: of pixels.
        valid: pixels that count.
        share: of each sample.
        least: no sample's share is lower; only so many of the largest values are sorted.
    """
    flat, valid = values.detach().flatten(2), valid.flatten(2)
    count = valid.sum(-1, keepdim=True)
    keep = (count * share[:, None, None]).floor()
    most = min(int(flat.shape[-1] * (1 - least)) + 2, flat.shape[-1])  # values at or above a threshold
    largest = flat.masked_fill(~valid, -torch.inf).topk(most, dim=-1).values
    threshold = largest.gather(-1, (count - keep).long().clamp(max=most - 1))
    below = valid & (flat < threshold)
    at_threshold = valid & (flat == threshold)
    left = keep - below.sum(-1, keepdim=True)
    weights = below + at_threshold * (left / at_threshold.sum(-1, keepdim=True).clamp(min=1))
    return weights.view_as(values)
