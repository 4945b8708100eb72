"""Probes of the cells that matches lie in, counted by hand and in a room that is known exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from coopmap import build_dataset, build_model, load_config
from coopmap.config import ConfigError
from coopmap.config.model import MatchingConfig, ModelConfig
from coopmap.evaluation.probes import BlindWedges, MovingVehicles, require_sense, why_nothing_asked
from coopmap.evaluation.probes.cells import answer_without
from coopmap.evaluation.probes.summary import probe_summary
from coopmap.metrics import pair_errors, predicted_pose
from coopmap.types import Batch, PairMatches, Target

from ..rooms import exact_prediction, knowing_matches, observation_of, room, three_poses

MODEL = ModelConfig(matching=MatchingConfig(enabled=True))
NAN = float("nan")


def batch_of(target: Target) -> Batch:
    return Batch(observation_of(target), target, (SimpleNamespace(),))  # type: ignore[arg-type]


def test_matches_in_blind_cells_are_counted() -> None:
    target = room(three_poses()[:, :2], 28, 56)  # 2 x 4 cells
    covered = torch.ones(1, 2, 28, 56, dtype=torch.bool)
    covered[0, 0, :14, :28] = False  # cells 0 and 1 of the first agent
    covered[0, 1, 14:, 42:] = False  # cell 7 of the second
    covered[0, 1, :13, :14] = False  # all but a row of its cell 0
    matches: Any = SimpleNamespace(
        matched=torch.tensor([[[[0, 7], [1, 2], [3, 3], [4, 0]]]]), weight=torch.tensor([[[0.1, 0.3, 0.5, 0.1]]])
    )
    prediction = replace(exact_prediction(target), matches=matches)
    batch = batch_of(replace(target, non_ambiguous=covered))
    (columns,) = BlindWedges(14).columns(batch, batch.observation, prediction)
    assert columns["blind_cells"] == pytest.approx([3 / 16])
    assert columns["blind_matches"] == pytest.approx([1 / 4])  # two are confident, one of their four ends is blind
    assert columns["blind_weight"] == pytest.approx([0.1 + 0.3 / 2])
    matches.weight = matches.weight / 10
    (columns,) = BlindWedges(14).columns(batch, batch.observation, prediction)
    assert columns["blind_matches"] == pytest.approx([NAN], nan_ok=True)


def test_what_moving_vehicles_show_has_no_say() -> None:
    """Three quarters of the second agent's view are as if they had come nearer: with them all pairs are far off."""
    target = room(three_poses(), 112, 448)
    moving = torch.zeros_like(target.valid)
    moving[0, 1, :, 112:] = True
    exact = replace(exact_prediction(target), matches=knowing_matches(target))
    wrong = replace(exact, depth=torch.where(moving, 0.6 * exact.depth, exact.depth))
    batch = batch_of(replace(target, moving=moving))
    with_all = answer_without(torch.zeros(1, 3, 256, dtype=torch.bool), wrong, batch.observation, MODEL)
    assert pair_errors(predicted_pose(with_all), target.pose)["trans_m"].min() > 2.0
    (clean,), (found,) = (
        MovingVehicles(MODEL).columns(batch, batch.observation, prediction) for prediction in (exact, wrong)
    )
    assert found["moving_trans_m"] == pytest.approx(clean["moving_trans_m"], abs=0.15)
    assert found["moving_rot_deg"] == pytest.approx(clean["moving_rot_deg"], abs=1.0)
    assert max(found["moving_trans_m"]) < 1.3
    assert found["moving_cells"] == pytest.approx([0.375, 0.0, 0.375])


def test_where_nothing_is_left_there_is_no_answer() -> None:
    target = room(three_poses(), 56, 224)
    moving = torch.zeros_like(target.valid)
    moving[0, 2] = True
    prediction = replace(exact_prediction(target), matches=knowing_matches(target))
    batch = batch_of(replace(target, moving=moving))
    (columns,) = MovingVehicles(MODEL).columns(batch, batch.observation, prediction)
    assert np.isnan(columns["moving_trans_m"]).tolist() == [False, True, True]
    unknown = batch_of(target)
    assert MovingVehicles(MODEL).columns(unknown, unknown.observation, prediction) == [{}]


@pytest.mark.parametrize(
    ("layout", "gravity"), [("panorama", False), ("cameras", False), ("mosaic", False), ("mosaic", True)]
)
def test_leaving_out_nothing_gives_the_models_own_answer(
    layout: str, gravity: bool, tiny: list[str], town: Path
) -> None:
    size = ["data.cameras.height=28", "data.cameras.width=42", "data.mosaic.height=28", "data.mosaic.width=42"]
    keys = ["model.matching.enabled=true", "model.pose_from=alignment", "loss=matching", "task=calibrated"]
    config = load_config([*tiny, *size, *keys, f"data.layout={layout}", f"model.matching.gravity={gravity}"])
    batch = Batch.collate([build_dataset(config, split="val")[0]])
    torch.manual_seed(0)
    with torch.no_grad():
        prediction = build_model(config).eval()(batch.observation)
        matches: PairMatches = prediction.matches
        nothing = torch.zeros(matches.unmatched.shape, dtype=torch.bool)
        again = answer_without(nothing, prediction, batch.observation, config.model)
    torch.testing.assert_close(again.pose_trans, prediction.pose_trans, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again.pose_quat, prediction.pose_quat, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("probe", "keys", "message"),
    [
        ("seam", ["data.layout=mosaic"], "probe=seam: data.layout=mosaic has no panorama that could be turned"),
        ("seam", ["data.layout=cameras"], "probe=seam: data.layout=cameras has no panorama that could be turned"),
        ("blind", ["data.layout=mosaic"], "probe=blind: data.layout=mosaic has no panorama with directions"),
        ("moving", ["model.pose_from=both"], "probe=moving: with model.pose_from=both poses are not made of matches"),
        ("moving", ["model.matching.enabled=false"], "probe=moving: it has no model.matching"),
    ],
)
def test_what_cannot_be_asked_is_refused(probe: str, keys: list[str], message: str, tiny: list[str]) -> None:
    matching = ["model.matching.enabled=true", "model.pose_from=alignment", "loss=matching", "task=calibrated"]
    config = load_config([*tiny, *matching])
    for key, value in (item.split("=") for item in keys):
        section, name = {
            "data.layout": (config.data, "layout"),
            "model.pose_from": (config.model, "pose_from"),
            "model.matching.enabled": (config.model.matching, "enabled"),
        }[key]
        setattr(section, name, value if name != "enabled" else False)
    require_sense(["alone"], config, "it")
    with pytest.raises(ConfigError) as raised:
        require_sense(["alone", probe], config, "it")
    assert message in str(raised.value)


def test_probes_compare_the_same_pairs() -> None:
    pairs = {
        "confidence": np.array([0.1, 0.8, 0.6]),
        "trans_m": np.array([9.0, 1.0, 2.0]),
        "other_street_confidence": np.array([NAN, 0.1, 0.3]),
        "seam_trans_m": np.array([NAN, 1.5, 1.5]),
    }
    found = probe_summary(pairs, np.arange(3), 0)
    assert list(found) == ["other_street", "seam"]
    street, seam = found["other_street"], found["seam"]
    assert street["as_they_are"]["confidence"]["mean"] == pytest.approx(0.7)
    assert street["other_street"]["confidence"]["mean"] == pytest.approx(0.2)
    assert seam["as_they_are"]["trans_m"]["median"] == pytest.approx(1.5)
    assert seam["difference"]["trans_m"]["p90"] == pytest.approx(0.4)
    assert probe_summary({"trans_m": pairs["trans_m"]}, np.arange(3), 0) == {}


def test_probes_without_a_question_say_why() -> None:
    lines = why_nothing_asked({"moving", "alone"})
    assert lines == [
        "probe=alone: nothing to ask: no sample has two agents",
        "probe=moving: nothing to ask: no sample comes with boxes of vehicles and their speed",
    ]
