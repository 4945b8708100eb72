"""What the terms of an objective log."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.losses.cells import TrueMatches
from coopmap.losses.reduce import weighted_mean


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
