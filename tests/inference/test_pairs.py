"""What is known of pairs: expectations, standard deviations, and which agents no pair supports."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import combinations

import pytest
import torch

from coopmap.config.infer import InferenceOptions
from coopmap.inference import Views
from coopmap.inference.outputs import describe_cameras
from coopmap.inference.pairs import describe_pairs, unsupported_agents
from coopmap.inference.report import pair_table
from coopmap.inference.runner import _postprocess
from coopmap.types import PairMatches, Prediction

from ..rooms import exact_prediction, knowing_matches, observation_of, room, three_poses

LINKS = {  # confidence of each pair of three agents, None: not determined; support of the second and of the third
    "all": ((0.9, 0.8, 0.7), (0.9, 0.8)),
    "through another": ((0.9, 0.1, 0.7), (0.9, 0.7)),
    "weak": ((0.9, 0.1, 0.2), (0.9, 0.2)),
    "one not determined": ((0.9, None, None), (0.9, 0.0)),
    "none": ((None, None, None), (0.0, 0.0)),
}


def matches_with(confidence: tuple[float | None, ...]) -> PairMatches:
    known = torch.tensor([[0.5 if value is None else value for value in confidence]])
    return dataclasses.replace(
        knowing_matches(room(three_poses())),
        confidence_logit=torch.logit(known),
        covisibility_logit=torch.logit(known / 2),
        information=torch.diag(torch.tensor([1e4, 1e4, 1e4, 4.0, 4.0, 1.0])).expand(1, 3, 6, 6),
        degenerate=torch.tensor([[value is None for value in confidence]]),
    )


def answered(confidence: tuple[float | None, ...] | None):
    target = room(three_poses())
    prediction: Prediction = exact_prediction(target)
    if confidence is not None:
        prediction = dataclasses.replace(prediction, matches=matches_with(confidence))
    images = torch.zeros(3, 56, 224, 3, dtype=torch.uint8).numpy()
    observation = observation_of(target).map(lambda tensor: tensor[0])
    views = Views(observation, images, ("650", "641", "699"), "cyl", "a frame", None)
    return views, _postprocess(prediction, InferenceOptions(camera_model="cyl"), None)


@pytest.mark.parametrize("name", LINKS)
def test_support_is_that_of_the_surest_chain(name: str):
    confidence, support = LINKS[name]
    torch.testing.assert_close(matches_with(confidence).support, torch.tensor([[1.0, *support]]))


def test_standard_deviations_are_those_of_the_information():
    matches = matches_with((0.9, None, 0.7))
    expected = torch.tensor([0.01, 0.01, 0.01, 0.5, 0.5, 1.0])
    torch.testing.assert_close(matches.sigma[0, 0], expected)
    assert matches.sigma[0, 1].isinf().all()
    nothing = dataclasses.replace(matches, information=torch.zeros(1, 3, 6, 6))
    assert nothing.sigma.isinf().all()


def test_every_pair_is_described_and_json_can_hold_it():
    views, result = answered((0.9, None, 0.2))
    pairs = describe_pairs(views, result)
    assert pairs is not None
    assert [tuple(pair["agents"]) for pair in pairs] == list(combinations(("650", "641", "699"), 2))
    assert pairs[0]["confidence"] == pytest.approx(0.9)
    assert pairs[0]["covisibility"] == pytest.approx(0.45)
    assert pairs[0]["sigma_deg"] == pytest.approx([math.degrees(0.01)] * 3, rel=1e-4)
    assert pairs[0]["sigma_m"] == pytest.approx([0.5, 0.5, 1.0])
    assert pairs[1]["pose"] is pairs[1]["sigma_m"] is None
    content = json.loads(json.dumps(describe_cameras(views, result), allow_nan=False, default=float))
    assert content["unsupported"] == ["699"]
    assert content["support"] == pytest.approx({"641": 0.9, "699": 0.2})
    assert [row.cells[0] for row in pair_table(views, result).sections[0].rows][:1] == ["650 - 641"]


def test_who_is_not_supported_is_said():
    assert unsupported_agents(*answered((0.9, 0.1, 0.7))) == []
    regressed, weak = unsupported_agents(*answered((0.3, None, None)))
    assert "699" in regressed
    assert "regressed" in regressed
    assert "the poses of 641 (0.30) relative to 650 are more likely off by over 2 m or 5 degrees than within" in weak
    assert "calibration_error" in weak
    (both,) = unsupported_agents(*answered((0.3, 0.1, 0.2)))
    assert "641 (0.30), 699 (0.20)" in both


def test_a_model_that_does_not_match_knows_nothing():
    views, result = answered(None)
    assert unsupported_agents(views, result) == []
    content = describe_cameras(views, result)
    assert content["pairs"] is content["support"] is content["unsupported"] is None
