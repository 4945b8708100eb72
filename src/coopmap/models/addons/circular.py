"""The dense head on maps whose columns form a ring: 360-degree panoramas (``model.heads.circular``).

Rolling the head's input by any number of patches rolls its output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.models.heads import DenseHead, DPTFeature, DPTRegressor, FusionBlock
from coopmap.models.rings import resize_ring, wrap


def join_edges(head: DenseHead) -> None:
    """Give ``head`` circular padding left and right; its parameters are unchanged."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            wrap(module)
        elif isinstance(module, FusionBlock | DPTRegressor):
            module.resize = resize_ring
        elif isinstance(module, DPTFeature):
            module.sample = from_both_starts
    head.maps_held += 1  # a circularly padded convolution copies its input


def from_both_starts(process: Callable[[Tensor], Tensor], level: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c _ w"]:
    """Mean over the two ways to take every second column of a ring, so that the starting column does not matter.

    Args:
        process: takes every second column, and doubles their number again.
        level: coarsest level of the dense head.
    """
    if level.shape[-1] % 2:  # two turns: every column is once at an even and once at an odd position
        first, second = process(torch.cat([level, level], dim=-1)).chunk(2, dim=-1)
    else:
        first, second = process(torch.cat([level, level.roll(1, dims=-1)])).chunk(2)
        second = second.roll(-1, dims=-1)
    return (first + second) / 2
