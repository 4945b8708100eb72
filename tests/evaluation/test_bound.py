"""Bounds in a room that is known exactly, on the town, and where there is nothing to solve."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coopmap import build_dataset, load_config
from coopmap.config.model import InputsConfig, MatchingConfig, ModelConfig
from coopmap.evaluation import bound
from coopmap.evaluation.bound import Bound
from coopmap.evaluation.pairs import average_pairs
from coopmap.geometry.se3 import relative_pose
from coopmap.metrics import agent_poses, pair_errors
from coopmap.models import MapAnything
from coopmap.types import Batch, Target

from ..rooms import exact_prediction, knowing_matches, level_pose, observation_of, room, three_poses

BOUND = Bound(ModelConfig(matching=MatchingConfig(enabled=True)), dense_share=0.4)


def errors(found: torch.Tensor, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Meters and degrees of all pairs, from ``T_i_j``."""
    first, second = torch.triu_indices(len(true), len(true), offset=1)
    answer = torch.stack([torch.eye(4, dtype=torch.float64).expand(len(first), 4, 4), found[first, second]], dim=1)
    pairs = pair_errors(answer, torch.stack([true[first], true[second]], dim=1))
    return pairs["trans_m"][:, 0], pairs["rot_deg"][:, 0]


@pytest.fixture
def target() -> Target:
    return room(three_poses(), 112, 448)  # cells of 11 degrees


def test_true_matches_with_true_ranges_are_within_decimeters_in_a_room(target: Target) -> None:
    found = BOUND.measure(observation_of(target), exact_prediction(target), target)
    assert list(found) == ["bound"]
    trans_m, rot_deg = errors(found["bound"][0], target.pose[0])
    assert trans_m.max() < 0.2
    assert rot_deg.max() < 0.5


def test_ranges_of_the_model_matter_to_its_bound_alone(target: Target) -> None:
    """Where all ranges are a tenth too long, so are the distances between agents, by a tenth and no more."""
    exact = replace(exact_prediction(target), matches=knowing_matches(target))
    longer = replace(exact, depth=1.1 * exact.depth)
    observation = observation_of(target)
    found, with_longer = (BOUND.measure(observation, each, target) for each in (exact, longer))
    for name in ("bound", "bound_own_matches"):
        torch.testing.assert_close(with_longer[name][0], found[name][0])
    distance = relative_pose(target.pose[0, :1], target.pose[0])[1:, :3, 3].norm(dim=-1).double()
    for own, factor in ((found, 1.0), (with_longer, 1.1)):
        answered = own["bound_own_ranges"][0][0, 1:, :3, 3].norm(dim=-1)
        torch.testing.assert_close(answered, factor * distance, atol=0.25, rtol=0.0)
    assert errors(found["bound_own_matches"][0], target.pose[0])[0].max() < 0.6


def test_own_matches_are_those_that_a_prior_left(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """At other points, but of the same cells, with the same weights."""
    matching = MatchingConfig(enabled=True, prior=True)
    config = replace(load_config(["model=mapanything_tiny"]).model, matching=matching, inputs=InputsConfig(pose=True))
    torch.manual_seed(0)
    images = torch.randn(1, 3, 3, 112, 448)
    given = replace(
        observation_of(target), images=images, pose_prior=target.pose, pose_sigma=torch.full((1, 3, 2), 0.3)
    )
    with torch.no_grad():
        prediction = MapAnything(config).eval()(given)
    found, correspond = [], bound.correspond
    monkeypatch.setattr(bound, "correspond", lambda *given: found.append(correspond(*given)) or found[-1])
    Bound(config, dense_share=0.4).measure(given, prediction, target)
    assert prediction.matches is not None
    assert torch.equal(found[0].cells, prediction.matches.matched)
    torch.testing.assert_close(found[0].weight, prediction.matches.weight)


def test_what_is_not_known_counts_for_nothing(target: Target) -> None:
    blind = replace(target, valid=torch.zeros_like(target.valid), depth=torch.zeros_like(target.depth))
    exact = replace(exact_prediction(target), matches=knowing_matches(target))
    found = BOUND.measure(observation_of(target), exact, blind)
    others = ~torch.eye(3, dtype=torch.bool)
    for name, (pose,) in found.items():
        assert pose[others].isnan().all(), name


def test_a_single_agent_has_no_bound() -> None:
    target = room(level_pose(0.0, 0.0, 0.0)[None, None])
    assert BOUND.measure(observation_of(target), exact_prediction(target), target) == {}


@pytest.mark.parametrize("layout", ["panorama", "cameras", "mosaic"])
def test_bounds_in_the_town_are_within_decimeters(layout: str, tiny: list[str], town: Path) -> None:
    """All pairs there share more than 0.4 of what they see; patches are 15 degrees wide, in cameras 12."""
    size = ["data.panorama.height=84", "data.panorama.width=336", "data.mosaic.height=84", "data.mosaic.width=336"]
    size += ["data.cameras.height=84", "data.cameras.width=112"]
    cfg = load_config([*tiny, *size, f"data.layout={layout}", "task=calibrated"])
    batch = Batch.collate([build_dataset(cfg, split="val")[0]])
    found = Bound(cfg.model, cfg.loss.dense_share).measure(
        batch.observation, exact_prediction(batch.target), batch.target
    )
    trans_m, rot_deg = errors(found["bound"][0], agent_poses(batch.target.pose, batch.target)[0])
    assert len(trans_m) == 3
    assert trans_m.max() < 0.4
    assert rot_deg.max() < 1.0


def test_chains_of_pairs_link_agents_and_gaps_stay_gaps() -> None:
    """In one sample agents 0 and 2 are linked through 4, 1 and 3 directly; in others all are, or none."""
    true = torch.stack([level_pose(3.0 * n, n * n, 40.0 * n) for n in range(5)]).double()
    first, second = torch.triu_indices(5, 5, offset=1)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    samples = {(0, 1, 0, 1, 0): {(0, 4), (2, 4), (1, 3)}, (0,) * 5: set(pairs), (0, 1, 2, 3, 4): set()}
    weight = torch.tensor([[pair in measured for pair in pairs] for measured in samples.values()]).double()
    pose = torch.where(weight[..., None, None] > 0, relative_pose(true[first], true[second]), torch.nan)
    groups = torch.tensor(list(samples))
    same = groups[:, :, None] == groups[:, None]
    found, expected = average_pairs(pose, weight, 5), relative_pose(true[:, None], true).expand(3, 5, 5, 4, 4)
    torch.testing.assert_close(found[same], expected[same], atol=1e-5, rtol=0.0)
    assert found[~same].isnan().all()
