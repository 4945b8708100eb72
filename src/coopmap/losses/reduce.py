"""Reductions without host synchronization: masks become weights, no data-dependent shapes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.losses.cells import TrueMatches


def weighted_mean(
    values: Float[Tensor, "..."], weights: Float[Tensor, "..."], dim: int | tuple[int, ...]
) -> Float[Tensor, "..."]:
    """Mean over ``dim``; 0, still attached to the graph, where all weights are 0."""
    total = weights.sum(dim)
    return (values * weights).sum(dim) / torch.where(total > 0, total, 1.0)


def mean_of_sums(sums: Float[Tensor, "b v"], total: Float[Tensor, "b v"]) -> Float[Tensor, " v"]:
    """:func:`weighted_mean` over samples and pixels, from the sums of each sample's views."""
    total = total.sum(dim=0)
    return sums.sum(dim=0) / torch.where(total > 0, total, 1.0)


def lowest_share_weights(
    values: Float[Tensor, "b v h w"],
    valid: Bool[Tensor, "b v h w"],
    share: Float[Tensor, " b"],
    least: float = 0.0,
) -> Float[Tensor, "b v h w"]:
    """Weights that keep the lowest ``share`` of each view's valid values, rounded down to whole pixels.

    Ties at the threshold share the remaining weight equally, so the weighted mean is exactly that of the sorted
    prefix (upstream ``keep_bottom_n_percent``). Carries no gradient.

    Args:
        values: of pixels.
        valid: pixels that count.
        share: of each sample.
        least: no sample's share is lower; only so many of the largest values are sorted.
    """
    flat, valid = values.detach().flatten(2), valid.flatten(2)
    count = valid.sum(-1, keepdim=True)
    keep = (count * share[:, None, None]).floor()
    most = min(int(flat.shape[-1] * (1 - least)) + 2, flat.shape[-1])  # values at or above a threshold
    largest = flat.masked_fill(~valid, -torch.inf).topk(most, dim=-1).values
    threshold = largest.gather(-1, (count - keep).long().clamp(max=most - 1))
    below = valid & (flat < threshold)
    at_threshold = valid & (flat == threshold)
    left = keep - below.sum(-1, keepdim=True)
    weights = below + at_threshold * (left / at_threshold.sum(-1, keepdim=True).clamp(min=1))
    return weights.view_as(values)


class Terms(dict[str, Tensor]):
    """Log entries of the objective's terms, detached.

    Attributes:
        measured: by name, the share of the batch's samples that hold anything to measure the entry on; if none does,
            the entry is 0. Tensors, since looking at them would wait for the device.
        true_matches: of the target, if a term needed them; for whoever measures something else of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.measured: dict[str, Float[Tensor, ""]] = {}
        self.true_matches: TrueMatches | None = None

    def add(self, name: str, value: Float[Tensor, ""], measured: Bool[Tensor, " b"]) -> None:
        """Add a term of the whole batch."""
        self[name], self.measured[name] = value.detach(), _share(measured)

    def add_views(
        self,
        name: str,
        per_view: Float[Tensor, " v"],
        measured: Bool[Tensor, "b v"],
        present: Bool[Tensor, " v"] | None = None,
    ) -> None:
        """Add a term of each view, see :func:`name_views`; its average is measured where one of the views is."""
        entries = name_views(name, per_view, present)
        self.update(entries)
        shares = [*_share(measured).unbind(), _share(measured.any(dim=1))]
        self.measured |= dict(zip(entries, shares, strict=True))


def _share(measured: Bool[Tensor, "b *v"]) -> Float[Tensor, "*v"]:
    return measured.float().mean(dim=0)


def name_views(
    name: str, per_view: Float[Tensor, " v"], present: Bool[Tensor, " v"] | None = None
) -> dict[str, Tensor]:
    """Log entries of one term: ``{name}_view1`` ... and, last, ``{name}_avg``, detached.

    The average is over ``present`` views; by default, as upstream, over those with a positive value (view 0, whose
    pose may be exact by construction, then does not dilute ``pose_trans_avg``).
    """
    per_view = per_view.detach()
    present = per_view > 0 if present is None else present
    entries = {f"{name}_view{index + 1}": value for index, value in enumerate(per_view.unbind())}
    return entries | {f"{name}_avg": weighted_mean(per_view, present.to(per_view), dim=0)}
