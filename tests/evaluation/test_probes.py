"""Probes: what the model gets, which pairs it is asked about, and what a model that looks must answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coopmap.evaluation.probes import OtherStreet
from coopmap.types import Observation, SampleMeta


class Model:
    """Remembers its inputs; is as confident of a pair as its number says."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []

    def __call__(self, observation: Observation) -> Any:
        self.inputs.append(observation.images[:, :, 0, 0, 0])
        batch, agents = observation.images.shape[:2]
        logit = torch.arange(agents * (agents - 1) // 2).float().expand(batch, -1)
        matches = SimpleNamespace(
            unmatched=torch.zeros(batch, agents, 4), confidence_logit=logit, covisibility_logit=-logit
        )
        return SimpleNamespace(matches=matches)


def images_of(first: float, agents: int) -> torch.Tensor:
    """Of agents that are numbered from a first number on."""
    return (first + torch.arange(agents).float())[:, None, None, None].expand(-1, 3, 2, 2)


def ask(probe: OtherStreet, *samples: tuple[str, float], agents: int = 3) -> list[dict[str, list[float]]]:
    """Samples by scenario and first number of their images."""
    observation = Observation(
        images=torch.stack([images_of(first, agents) for _, first in samples]),
        rays=torch.zeros(len(samples), agents, 2, 2, 3),
    )
    metas = tuple(SampleMeta(name, "000000", tuple("abc"[:agents])) for name, _ in samples)
    return probe.columns(SimpleNamespace(metas=metas), observation, None)  # type: ignore[arg-type]


def elsewhere(meta: SampleMeta) -> Any:
    """Three agents of another scenario than "one"; nothing for others."""
    images = images_of(20.0, 3)
    return SimpleNamespace(observation=SimpleNamespace(images=images)) if meta.scenario == "one" else None


def test_all_but_the_reference_agent_come_from_another_scenario() -> None:
    model = Model()
    probe = OtherStreet(model, elsewhere)
    assert ask(probe, ("two", 10.0)) == [{}]
    assert model.inputs == []
    first, second = ask(probe, ("one", 30.0), ("two", 40.0))
    assert model.inputs[-1].tolist() == [[30.0, 21.0, 22.0], [40.0, 41.0, 42.0]]
    assert first.keys() == {"other_street_confidence", "other_street_covisibility_pred"}
    assert second == {}
    ask(probe, ("one", 50.0), agents=2)
    assert model.inputs[-1].tolist() == [[50.0, 21.0]]


def test_only_pairs_of_agents_in_different_streets_count() -> None:
    (columns,) = ask(OtherStreet(Model(), elsewhere), ("one", 30.0))
    assert columns["other_street_confidence"] == pytest.approx([0.5, 0.731, float("nan")], abs=1e-3, nan_ok=True)
    assert columns["other_street_covisibility_pred"] == pytest.approx([0.5, 0.269, float("nan")], abs=1e-3, nan_ok=True)
