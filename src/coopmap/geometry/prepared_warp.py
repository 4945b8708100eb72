"""A warp with what it takes to apply it again and again, computed once (numpy)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, UInt8

from coopmap.geometry.panorama import PanoramaSpec, PanoramaWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.stitching import Stitching, stitch, stitching


class PreparedWarp:
    """The map from panorama to cameras of one rig.

    Args:
        warp: the map.
        rig: that it was computed for.
        spec: the panorama.
    """

    def __init__(self, warp: PanoramaWarp, rig: Rig, spec: PanoramaSpec) -> None:
        self.warp, self.rig, self.spec = warp, rig, spec

    @cached_property
    def covered(self) -> Bool[np.ndarray, "h w"]:
        """Pixels that some camera sees."""
        return self.warp.covered

    @cached_property
    def _stitching(self) -> Stitching:
        return stitching(self.warp, self.rig, self.spec)

    def stitch(
        self, images: UInt8[np.ndarray, "k h w 3"], gains: Float[np.ndarray, " k"] | None = None
    ) -> UInt8[np.ndarray, "hp wp 3"]:
        """See :func:`coopmap.geometry.stitching.stitch`."""
        return stitch(self._stitching, images, gains)
