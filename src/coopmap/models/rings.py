"""Convolution and resizing of maps whose columns form a ring: 360-degree panoramas."""

from __future__ import annotations

import math
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def wrap(convolution: nn.Conv2d) -> nn.Conv2d:
    """Give a convolution circular padding left and right, and keep zero padding above and below."""
    rows, columns = cast(tuple[int, int], convolution.padding)
    convolution.padding = (rows, 0)
    convolution.register_forward_pre_hook(_Wrap(columns))
    return convolution


class _Wrap:
    """Forward pre-hook that pads maps with columns of the opposite edge."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return F.pad(inputs[0], (self.columns, self.columns, 0, 0), mode="circular")


def resize_ring(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear resizing: rows with aligned corners, as in ordinary maps; columns keep their angle.

    On a ring of ``w`` columns the center of column ``j`` lies at ``(j + 0.5) / w`` of the circumference, before and
    after: nothing is stretched, and the last column is followed by the first.
    """
    height, width = size
    x = F.interpolate(x, size=(height, x.shape[-1]), mode="bilinear", align_corners=True)
    # Enough padded columns that their resized number is whole; they are cropped afterward.
    common = math.gcd(x.shape[-1], width)
    margin, margin_after = x.shape[-1] // common, width // common
    x = F.pad(x, (margin, margin, 0, 0), mode="circular")
    x = F.interpolate(x, size=(height, width + 2 * margin_after), mode="bilinear", align_corners=False)
    return x[..., margin_after:-margin_after]
