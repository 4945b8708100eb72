"""What a probe answers: columns of the pairs of agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.pairs import pair_ends
from coopmap.metrics import agent_poses, pair_errors
from coopmap.types import Batch, Observation, PairMatches, Prediction, Target

Columns = dict[str, list[float]]


class Probe(Protocol):
    """A question to a model."""

    def columns(self, batch: Batch, observation: Observation, prediction: Prediction) -> list[Columns]:
        """Columns of pairs for each sample of a batch; none where there is nothing to ask.

        Args:
            batch: the samples.
            observation: what the model was given of them.
            prediction: of the model.
        """
        ...


def by_sample(probe: str, columns: Mapping[str, Float[Tensor, "b p"]]) -> list[Columns]:
    """The columns of each sample, named after the probe."""
    lists = {f"{probe}_{name}": values.tolist() for name, values in columns.items()}
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def errors_of(pose: Float[Tensor, "b v 4 4"], target: Target) -> dict[str, Float[Tensor, "b p"]]:
    """Errors of the agents' relative poses, from those of their views in any common frame."""
    errors = pair_errors(agent_poses(pose, target), agent_poses(target.pose, target))
    return {name: errors[name] for name in ("trans_m", "rot_deg")}


def expected_of(matches: PairMatches | None) -> dict[str, Float[Tensor, "b p"]]:
    """Confidence and co-visibility that a model expects of each pair; nothing of one that does not match."""
    if matches is None:
        return {}
    logits = {"confidence": matches.confidence_logit, "covisibility_pred": matches.covisibility_logit}
    return {name: logit.double().sigmoid() for name, logit in logits.items()}


def with_reference(columns: Mapping[str, Float[Tensor, "b p"]], agents: int) -> dict[str, Float[Tensor, "b p"]]:
    """The columns, NaN for pairs without the reference agent."""
    without = pair_ends(agents)[0] > 0
    return {name: values.masked_fill(without.to(values.device), torch.nan) for name, values in columns.items()}
