"""Convolution and resizing of maps whose columns form a ring: 360-degree panoramas."""

from __future__ import annotations

import math
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class WrappingConv2d(nn.Conv2d):
    """Convolution whose input continues at the opposite edge, left and right; above and below there are zeros.

    Parameters are those of ``nn.Conv2d``.
    """

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o _ _"]:
        rows, columns = cast(tuple[int, int], self.padding)
        wrapped = F.pad(x, (columns, columns, 0, 0), mode="circular")
        return F.conv2d(wrapped, self.weight, self.bias, self.stride, (rows, 0))


def convolution(circular: bool) -> type[nn.Conv2d]:
    """The class of convolutions for rings, or for ordinary images."""
    return WrappingConv2d if circular else nn.Conv2d


def resize(x: Float[Tensor, "b c h w"], size: tuple[int, int], circular: bool) -> Float[Tensor, "b c h2 w2"]:
    """Bilinear resizing, corner pixels onto corner pixels; the columns of a ring keep their angle instead.

    On a ring of ``w`` columns the center of column ``j`` lies at ``(j + 0.5) / w`` of the circumference, before and
    after: nothing is stretched, and the last column is followed by the first.
    """
    if not circular:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    height, width = size
    x = F.interpolate(x, size=(height, x.shape[-1]), mode="bilinear", align_corners=True)
    # Enough wrapped columns that their resized number is whole; they are cut off again.
    common = math.gcd(x.shape[-1], width)
    margin, margin_after = x.shape[-1] // common, width // common
    x = F.pad(x, (margin, margin, 0, 0), mode="circular")
    x = F.interpolate(x, size=(height, width + 2 * margin_after), mode="bilinear", align_corners=False)
    return x[..., margin_after:-margin_after]
