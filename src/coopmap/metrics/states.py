"""Reading the list states of metrics, which may be empty, one tensor (after a sync) or a list of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.utilities.data import dim_zero_cat


def gathered(state: list[Tensor] | Tensor, device: torch.device) -> Float[Tensor, " n"]:
    """All values of a list state in one tensor, empty if there are none."""
    return dim_zero_cat(state) if len(state) else torch.zeros(0, device=device)


def median(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Median, the mean of the middle two for an even number; NaN for none. NaN values are not counted."""
    return values.nanquantile(0.5) if len(values) else values.new_tensor(torch.nan)


class Table:
    """Columns of a list state that holds rows, flattened and in single precision.

    So a rank without rows, whose state torchmetrics makes an empty vector of floats, gathers with the others.
    """

    def __init__(self, names: Sequence[str], state: list[Tensor] | Tensor, device: torch.device) -> None:
        columns = gathered(state, device).double().view(-1, len(names)).unbind(dim=1)
        self._columns = dict(zip(names, columns, strict=True))

    def __getitem__(self, name: str) -> Float[Tensor, " n"]:
        return self._columns[name]
