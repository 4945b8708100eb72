"""Means that handle undefined values, and ranges to bin values by."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Values = TypeVar("Values", Tensor, np.ndarray)


def mean_where(values: Float[Tensor, "b *n"], mask: Bool[Tensor, "b *n"]) -> Float[Tensor, " b"]:
    """Mean of each sample's masked values in double precision, NaN where there are none."""
    total = torch.where(mask, values, 0.0).flatten(1).sum(dim=1, dtype=torch.float64)
    return total / mask.flatten(1).sum(dim=1)


def or_infinite(errors: Float[Tensor, "*b"], known: Bool[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Errors of predictions, infinite where the prediction is not finite and the truth is known."""
    return errors.masked_fill(errors.isnan() & known, math.inf)


def or_unanswered(errors: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Errors of a method that may have no answer: NaN instead of infinite, where its pose is not finite."""
    return errors.masked_fill(errors.isinf(), math.nan)


def quantile(values: Float[np.ndarray, " n"], share: float) -> float:
    """Linear between the two nearest values, none of them NaN; infinite ones count, between which numpy finds NaN."""
    low, high = (np.quantile(values, share, method=side) for side in ("lower", "higher"))
    return float(high if low == high or np.isinf(high) else np.quantile(values, share))


def bin_label(low: float, high: float, unit: str = "") -> str:
    """Name of the range [low, high): ``10_20m``, or ``over_80m`` without an upper bound."""
    return f"over_{low:g}{unit}" if math.isinf(high) else f"{low:g}_{high:g}{unit}"


def in_bin(values: Values, low: float, high: float) -> Values:
    """Which values lie in [low, high)."""
    return (values >= low) & (values < high)
