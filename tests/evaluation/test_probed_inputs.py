"""Probes that change the inputs, asked of models whose way of looking is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import roma
import torch

from coopmap import build_dataset, load_config
from coopmap.data.views import GroupedViews, PanoramaViews, WarpedViews
from coopmap.evaluation.probes import Alone, Seam
from coopmap.evaluation.probes.inputs import turned
from coopmap.geometry import quat_trans_from_pose, relative_pose
from coopmap.geometry.poses import rotation_about_y
from coopmap.types import Batch, Observation, Prediction, SampleMeta, Target

from ..rooms import exact_prediction, observation_of, points_in_world, room, three_poses

PATCH = 14
NAN = float("nan")


@pytest.fixture
def target() -> Target:
    return room(three_poses())


def batch_of(target: Target) -> Batch:
    return Batch(observation_of(target), target, (SampleMeta("street", "000000", ("a", "b", "c")),))


def answering(pose: torch.Tensor, target: Target, confidence: float = 0.9) -> Prediction:
    """A prediction of poses in any common frame."""
    quat, trans = quat_trans_from_pose(relative_pose(pose[:, :1], pose))
    logit = torch.full((len(pose), 3), math.log(confidence / (1 - confidence)))
    matches: Any = SimpleNamespace(confidence_logit=logit, covisibility_logit=-logit)
    return replace(exact_prediction(target), pose_quat=quat, pose_trans=trans, matches=matches)


def looking(target: Target) -> Callable[[Observation], Prediction]:
    """A model that reads poses from what pixels show (points of the world) and from how far away that is."""

    def model(observation: Observation) -> Prediction:
        assert observation.depth_prior is not None
        seen = (observation.rays * observation.depth_prior[..., None]).flatten(2, 3)
        shown = observation.images.movedim(2, -1).flatten(2, 3)
        rotation, position = roma.rigid_points_registration(seen.double(), shown.double())
        pose = torch.eye(4).expand(*rotation.shape[:2], 4, 4).clone()
        pose[..., :3, :3], pose[..., :3, 3] = rotation.float(), position.float()
        return answering(pose, target)

    return model


def showing_points(target: Target) -> Observation:
    """Images of points in the world, with ranges."""
    images = points_in_world(target).movedim(-1, 2)
    return replace(observation_of(target), images=images, depth_prior=target.depth, pose_prior=target.pose)


def test_a_model_that_looks_answers_turned_panoramas_as_before(target: Target) -> None:
    observation, model = showing_points(target), looking(target)
    (columns,) = Seam(model, PATCH).columns(batch_of(target), observation, model(observation))
    for name in ("seam_trans_m", "seam_change_m"):
        assert columns[name] == pytest.approx([0.0] * 3, abs=1e-4), name
    for name in ("seam_rot_deg", "seam_change_deg"):
        assert columns[name] == pytest.approx([0.0] * 3, abs=0.05), name
    assert columns["seam_confidence"] == pytest.approx([0.9] * 3)


def test_poses_that_come_with_the_observation_are_turned_as_well(target: Target) -> None:
    observation = showing_points(target)

    def believing(given: Observation) -> Prediction:
        assert given.pose_prior is not None
        return answering(given.pose_prior, target)

    (columns,) = Seam(believing, PATCH).columns(batch_of(target), observation, believing(observation))
    assert columns["seam_trans_m"] == pytest.approx([0.0] * 3, abs=1e-4)


def test_a_model_that_does_not_look_is_found_by_its_headings(target: Target) -> None:
    """It does not notice that the two others have turned: their headings come out half a turn off."""
    answer = answering(target.pose, target)
    (columns,) = Seam(lambda _: answer, PATCH).columns(batch_of(target), showing_points(target), answer)
    assert columns["seam_rot_deg"] == pytest.approx([180.0, 180.0, 0.0], abs=0.05)
    assert columns["seam_change_deg"] == pytest.approx([180.0, 180.0, 0.0], abs=0.05)


@pytest.mark.parametrize(
    ("layout", "views"),
    [("panorama", PanoramaViews), ("warped", WarpedViews), ("grouped", GroupedViews)],
)
def test_turned_observations_are_those_that_turned_agents_would_give(
    layout: str, views: type[PanoramaViews], tiny: list[str], town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = 3 * PATCH
    fusion = [] if layout == "panorama" else [f"model/fusion={'concat' if layout == 'warped' else 'mean'}"]
    config = load_config([*tiny, f"data.layout={layout}", *fusion])
    plain = Batch.collate([build_dataset(config, split="val")[0]])
    frame = views._frame
    monkeypatch.setattr(views, "_frame", lambda *args: replace(frame(*args), shift=shift))
    expected = Batch.collate([build_dataset(config, split="val")[0]])
    found = turned(plain.observation, 0, shift, PATCH)
    for name in ("images", "rays", "camera_angle", "camera_grid", "camera_pose", "gravity"):
        value, wanted = getattr(found, name), getattr(expected.observation, name)
        assert (value is None) == (wanted is None), name
        if value is not None:
            torch.testing.assert_close(value, wanted, atol=2e-4, rtol=0, msg=name)
    turn = torch.from_numpy(rotation_about_y(2 * math.pi * shift / 112)).float()
    torch.testing.assert_close(plain.target.pose @ turn, expected.target.pose, atol=1e-4, rtol=0)
    first_stays = turned(plain.observation, 1, shift, PATCH)
    assert torch.equal(first_stays.images[:, 0], plain.observation.images[:, 0])
    assert torch.equal(first_stays.images[:, 1:], found.images[:, 1:])


def test_a_model_that_looks_knows_nothing_of_blank_agents(target: Target) -> None:
    """Seeing all it is right; of agents whose images are blank it says that they stand where the first one does."""
    given: list[Observation] = []

    def model(observation: Observation) -> Prediction:
        given.append(observation)
        shows = (observation.images != 0).flatten(2).any(dim=-1)[..., None, None]
        return answering(torch.where(shows, target.pose, target.pose[:, :1]), target, 0.9 if shows.all() else 0.1)

    observation = replace(showing_points(target), depth_given=torch.tensor([[True, False, True]]))
    (columns,) = Alone(model).columns(batch_of(target), observation, model(observation))
    distance = (target.pose[0, 1:, :3, 3] - target.pose[0, :1, :3, 3]).norm(dim=-1).tolist()
    assert columns["alone_trans_m"] == pytest.approx([*distance, NAN], abs=1e-4, nan_ok=True)
    assert columns["alone_confidence"] == pytest.approx([0.1, 0.1, NAN], nan_ok=True)
    assert columns["alone_covisibility_pred"] == pytest.approx([0.9, 0.9, NAN], nan_ok=True)
    blank = given[-1]
    assert torch.equal(blank.images[:, 0], observation.images[:, 0])
    assert blank.depth_given is not None
    assert blank.pose_given is not None
    assert blank.depth_given.tolist() == blank.pose_given.tolist() == [[True, False, False]]


def test_a_model_that_has_learned_the_place_is_found(target: Target) -> None:
    answer = answering(target.pose, target)
    (columns,) = Alone(lambda _: answer).columns(batch_of(target), showing_points(target), answer)
    assert columns["alone_trans_m"] == pytest.approx([0.0, 0.0, NAN], abs=1e-4, nan_ok=True)


def test_one_agent_is_not_asked_about_others(target: Target) -> None:
    single = target.map(lambda values: values[:, :1] if values.ndim > 1 else values)
    batch = Batch(observation_of(single), single, (SampleMeta("street", "000000", ("a",)),))
    for probe in (Alone(pytest.fail), Seam(pytest.fail, PATCH)):  # type: ignore[arg-type]
        assert probe.columns(batch, batch.observation, exact_prediction(single)) == [{}]
