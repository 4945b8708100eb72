"""Weights that hold NaN or infinity, named before anything is computed with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MAX_NAMED = 5


def require_finite(tensors: Mapping[str, object], source: str) -> None:
    """Check that weights are numbers.

    Args:
        tensors: by name; what is no tensor of floats is passed over.
        source: of the weights, for the message.

    Raises:
        ValueError: some are NaN or infinite; the message names them.
    """
    broken = [
        name
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta and not _is_finite(tensor)
    ]
    if broken:
        more = f" and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        raise ValueError(
            f"{source}: NaN or infinity in {len(broken)} of {len(tensors)} tensors: {', '.join(broken[:MAX_NAMED])}"
            f"{more}. These weights are damaged, or come from a run that diverged; take an earlier checkpoint"
        )


def _is_finite(tensor: Tensor) -> bool:
    """A sum, which takes no memory, tells of nearly all tensors that they are."""
    return bool(tensor.sum(dtype=torch.float64).isfinite()) or bool(tensor.isfinite().all())
