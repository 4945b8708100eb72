"""Names of shared tensors: MapAnything registers some modules several times, so some tensors have several names."""

from __future__ import annotations

from collections import defaultdict

from torch import nn


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Map every name in ``model.state_dict()`` to the alphabetically first name of the same tensor.

    Released safetensors files hold each tensor once, under that first name; training checkpoints hold all names.
    """
    names_of_tensor = defaultdict(list)
    for name, tensor in model.state_dict(keep_vars=True).items():
        names_of_tensor[id(tensor)].append(name)
    return {name: min(names) for names in names_of_tensor.values() for name in names}
