"""Where surfaces have a shape that can be compared."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.types import Target


def dense_pixels(target: Target, cfg: LossConfig) -> Bool[Tensor, "b v h w"]:
    """Valid pixels of the views whose depth is dense enough to have normals and gradients."""
    if cfg.normals == "synthetic":
        return target.valid & target.is_synthetic[:, None, None, None]
    covered = target.non_ambiguous.sum(dim=(-2, -1), keepdim=True)
    known = (target.valid & target.non_ambiguous).sum(dim=(-2, -1), keepdim=True)
    return target.valid & (known >= cfg.dense_share * covered)
