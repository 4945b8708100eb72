"""Shortcut probes: inputs on which a model that recognizes what agents share must say that there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.types import Batch, Observation, Prediction

PROBE_COLUMNS = ("other_street_confidence", "other_street_covisibility_pred")
"""Columns of pairs with the reference agent."""


class OtherStreet:
    """All agents but the reference agent get the images of agents of another scenario.

    The images come from the latest sample of another scenario with at least as many agents: the first samples of an
    evaluation may have none.

    Args:
        model: that matches.
    """

    def __init__(self, model: Callable[[Observation], Prediction]) -> None:
        self.model = model
        self._seen: dict[str, Tensor] = {}

    @torch.no_grad()
    def columns(self, batch: Batch, observation: Observation) -> list[dict[str, list[float]]]:
        """Columns of pairs for each sample of a batch; none for samples without a partner or without pairs."""
        images, partners = observation.images.clone(), []
        for row, meta in enumerate(batch.metas):
            partner = self._partner(meta.scenario, images.shape[1])
            partners.append(partner is not None)
            if partner is not None:
                views = images.shape[1] // len(dict.fromkeys(meta.agents))
                images[row, views:] = partner[views : images.shape[1]]
            self._seen.pop(meta.scenario, None)
            self._seen[meta.scenario] = observation.images[row]
        for scenario in list(self._seen)[:-2]:
            del self._seen[scenario]
        matches = self.model(replace(observation, images=images)).matches if any(partners) else None
        if matches is None:
            return [{} for _ in partners]
        agents = matches.unmatched.shape[1]
        foreign = torch.triu_indices(agents, agents, offset=1)[0] == 0
        values = [_only(foreign, logit) for logit in (matches.confidence_logit, matches.covisibility_logit)]
        return [
            {name: column[row] for name, column in zip(PROBE_COLUMNS, values, strict=True)} if known else {}
            for row, known in enumerate(partners)
        ]

    def _partner(self, scenario: str, views: int) -> Tensor | None:
        """Images of the latest sample of another scenario."""
        return next(
            (images for other, images in reversed(self._seen.items()) if other != scenario and len(images) >= views),
            None,
        )


def _only(pairs: Tensor, logit: Float[Tensor, "b p"]) -> list[list[float]]:
    """Probabilities, NaN for all but some pairs."""
    values: list[list[float]] = torch.where(pairs.to(logit.device), logit.double().sigmoid(), torch.nan).tolist()
    return values
