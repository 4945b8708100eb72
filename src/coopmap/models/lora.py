"""Low-rank adaptation (Hu et al., arXiv 2106.09685) of linear layers, on PyTorch's parametrizations.

A frozen weight ``W`` becomes ``W + scale * up @ down``; ``up`` is zero-initialized, so that nothing changes at first.
Merging adds the product to the weight and gives the model its ordinary names back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

ORIGINAL = re.compile(r"(?P<layer>.+)\.parametrizations\.weight\.original$")


class LowRankUpdate(nn.Module):
    """Adds a product of two thin matrices to a weight.

    Args:
        weight: of the layer, ``(out, in)``.
        rank: inner dimension.
        alpha: the update is multiplied by ``alpha / rank``.
    """

    scale: Tensor

    def __init__(self, weight: Float[Tensor, "o i"], rank: int, alpha: float) -> None:
        super().__init__()
        out_dim, in_dim = weight.shape
        self.down = nn.Parameter(torch.empty(rank, in_dim, dtype=weight.dtype, device=weight.device))
        self.up = nn.Parameter(torch.zeros(out_dim, rank, dtype=weight.dtype, device=weight.device))
        self.register_buffer("scale", torch.tensor(alpha / rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        """The weight that the layer uses."""
        # In half precision the sum would lose updates below a 256th of a weight, which a merged weight keeps.
        device = weight.device.type
        whole = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with whole:
            return torch.addmm(weight, self.up * self.scale, self.down)


def add_lora(modules: Sequence[nn.Module], rank: int, alpha: float) -> int:
    """Freeze ``modules`` and add a trainable low-rank update to each linear layer; returns the number of layers."""
    for module in modules:
        module.requires_grad_(False)
    layers = [layer for module in modules for layer in _linear_layers(module)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRankUpdate(layer.weight, rank, alpha))
    return len(layers)


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without updates: its tensors under their ordinary names, updates added to the weights."""
    merged = {name: tensor for name, tensor in state.items() if ".parametrizations." not in name}
    for name, original in state.items():
        if match := ORIGINAL.match(name):
            update = f"{match['layer']}.parametrizations.weight.0."
            down, up, scale = (state[update + part] for part in ("down", "up", "scale"))
            merged[f"{match['layer']}.weight"] = torch.addmm(original, up * scale, down)
    return merged


def _linear_layers(module: nn.Module) -> Iterator[nn.Linear]:
    return (layer for layer in module.modules() if isinstance(layer, nn.Linear))
