"""Terms that have a loss of each pixel, and their reduction to views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from coopmap.losses.blocks import map_rows, sum_rows


@dataclass(frozen=True)
class PixelLoss:
    """Loss of each pixel.

    Attributes:
        rows: computes it for the same rows ``(n, w, *c)`` of the maps, and ``(n,)`` of the values of views.
        maps, of_views: their arguments, of the whole batch.
    """

    rows: Callable[..., Float[Tensor, "n w"]]
    maps: tuple[Float[Tensor, "b v h w *c"], ...]
    of_views: tuple[Float[Tensor, "b v"], ...] = ()

    def values(self) -> Float[Tensor, "b v h w"]:
        """Of every pixel, without gradient."""
        return map_rows(self.rows, self.maps, self.of_views)

    def weighted_sum(self, weight: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v"]:
        """Sum over the pixels of each view."""

        def rows(weight: Tensor, *block: Tensor) -> Tensor:
            return (self.rows(*block) * weight).sum(dim=-1)

        return sum_rows(rows, (weight, *self.maps), self.of_views, where=weight > 0)[0]

    def confident_sum(
        self, weight: Float[Tensor, "b v h w"], confidence: Float[Tensor, "b v h w"], scale: float, alpha: float
    ) -> tuple[Float[Tensor, "b v"], Float[Tensor, "b v"]]:
        """Sums of ``confidence * scale * loss - alpha * log(confidence)``, and of ``scale * loss`` without gradient."""

        def rows(weight: Tensor, confidence: Tensor, *block: Tensor) -> tuple[Tensor, Tensor]:
            loss = self.rows(*block) * scale
            trusted = loss * confidence - alpha * confidence.log()
            return (trusted * weight).sum(dim=-1), (loss.detach() * weight).sum(dim=-1)

        trusted, plain = sum_rows(rows, (weight, confidence, *self.maps), self.of_views, where=weight > 0)
        return trusted, plain
