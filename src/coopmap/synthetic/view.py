"""What an observer of a synthetic world sees along rays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float


class View(Protocol):
    """A world and the moving cars around one observer at one moment."""

    def distance(self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Distance to the first surface in lengths of ``direction``, infinite for the sky."""

    def look(
        self, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "n 3"], pixel: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """Distance (as :meth:`distance`) and color, for :meth:`develop`.

        Args:
            origin: camera position, CARLA axes.
            direction: ray of each pixel.
            pixel: width of a pixel at distance 1 along ``direction``.
        """

    def develop(self, color: Float[np.ndarray, "h w 3"], seed: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
        """RGB in [0, 1] of an image of such colors; ``seed`` decides what noise there is."""
