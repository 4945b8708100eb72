"""Means of named metrics over samples and ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, distributed


class TermMeans:
    """Mean of each named term, weighted by samples.

    Ranks and batches may have different names (a batch with two views has no term of view 3), which rules out
    per-name reductions: ranks without a name would not take part.

    Attributes:
        unmeasured: names of which the latest :meth:`compute` found nothing measured on any rank.
    """

    unmeasured: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forget everything."""
        self._sums, self._counts = {}, {}

    def update(
        self, terms: Mapping[str, Tensor], num_samples: int, measured: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add the terms of a batch, each reduced over its samples.

        Args:
            terms: by name.
            num_samples: of the batch.
            measured: share of the batch's samples that a term was measured on, 0 to 1; by default all. The others do
                not count.
        """
        for name, value in terms.items():
            value = value.detach().double()
            count = torch.full_like(value, num_samples)
            if measured is not None and name in measured:
                count = count * measured[name]
            weighted = torch.where(count > 0, value * count, 0.0)
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
            self._counts[name] = self._counts[name] + count if name in self._counts else count

    def compute(self, device: torch.device) -> dict[str, Tensor]:
        """Means over everything that all ranks added, NaN if nothing of it was measured; a collective call."""
        names = sorted(self._sums)
        if distributed.is_available() and distributed.is_initialized():
            gathered: list[list[str]] = [[]] * distributed.get_world_size()
            distributed.all_gather_object(gathered, names)
            names = sorted(set().union(*gathered))
        if not names:
            return {}
        zero = torch.zeros((), dtype=torch.float64, device=device)
        sums = torch.stack([self._sums.get(name, zero) for name in names])
        counts = torch.stack([self._counts.get(name, zero) for name in names])
        if distributed.is_available() and distributed.is_initialized():
            both = torch.stack([sums, counts])
            distributed.all_reduce(both)
            sums, counts = both
        self.unmeasured = tuple(name for name, count in zip(names, counts.tolist(), strict=True) if not count)
        return dict(zip(names, (sums / counts).float().unbind(), strict=True))
