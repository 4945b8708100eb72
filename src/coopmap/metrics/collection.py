"""The rows of a split, gathered over ranks, and their metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from coopmap.metrics.aggregate import PAIR_COLUMNS, SAMPLE_COLUMNS, aggregate
from coopmap.metrics.pose import AUC_NAME
from coopmap.metrics.rows import Rows

HEADLINE = "pose_trans_avg"
SMALLEST_MASK_MEAN = 0.05
BASELINE_COLUMNS = ((AUC_NAME,), ("trans_m", "rot_deg"))
"""Columns of :class:`Measures` for a prediction that consists of poses only."""


class Measures(Metric):
    """Metrics of a split: ``update`` with the rows of each batch, ``compute`` and ``reset`` at its end.

    Keeps the rows, so that metrics do not depend on the number of ranks, medians included.

    Args:
        sample_columns, pair_columns: to keep.
    """

    full_state_update = False
    samples: list[Tensor]
    pairs: list[Tensor]

    def __init__(
        self, sample_columns: Sequence[str] = SAMPLE_COLUMNS, pair_columns: Sequence[str] = PAIR_COLUMNS
    ) -> None:
        super().__init__()
        self.sample_columns, self.pair_columns = tuple(sample_columns), tuple(pair_columns)
        self.add_state("samples", default=[], dist_reduce_fx="cat")
        self.add_state("pairs", default=[], dist_reduce_fx="cat")

    def update(self, rows: Rows) -> None:
        """Add a batch."""
        self.samples.append(_packed(rows.samples, self.sample_columns))
        self.pairs.append(_packed(rows.pairs, self.pair_columns))

    def compute(self) -> dict[str, float]:
        """Metrics over everything that all ranks added since the last reset; a collective call."""
        return aggregate(_unpacked(self.samples, self.sample_columns), _unpacked(self.pairs, self.pair_columns))


def _packed(columns: Mapping[str, Tensor], names: Sequence[str]) -> Float[Tensor, " n"]:
    """Rows flattened and in single precision.

    So a rank without rows, whose state torchmetrics makes an empty vector of floats, gathers with the others.
    """
    return torch.stack([columns[name] for name in names], dim=-1).flatten().float()


def _unpacked(state: list[Tensor] | Tensor, names: Sequence[str]) -> dict[str, Float[np.ndarray, " n"]]:
    """Columns of a list state, which may be empty, one tensor (after a sync) or a list of tensors."""
    rows = dim_zero_cat(state) if len(state) else torch.zeros(0)
    columns = rows.double().cpu().view(-1, len(names)).unbind(dim=1)
    return {name: column.numpy() for name, column in zip(names, columns, strict=True)}


def truth_warning(unmeasured: Collection[str], split: str) -> str | None:
    """Warning about terms that are NaN because no sample has ground truth for them, or ``None``."""
    if HEADLINE not in unmeasured:
        return None
    return (
        f"{split}/{HEADLINE} is NaN, and so is all that needs known depth: no pixel of the split has any. Look at the "
        "unit of the depth files, data.depth_root, data.depth.kind and data.depth.max_m; coopmap check compares them"
    )


def mask_warning(figures: Mapping[str, float], split: str) -> str | None:
    """Warning about a mask that has collapsed, or ``None``."""
    predicted = figures["mask_pred_mean"]
    if not predicted < SMALLEST_MASK_MEAN:
        return None
    return (
        f"{split}/mask_pred_mean is {predicted:.3f}, below {SMALLEST_MASK_MEAN} (the truth is "
        f"{float(figures['mask_true_mean']):.3f}): the model keeps almost no points. "
        "Look at the mask term of the loss, and whether the loaded weights contain a mask head"
    )
