"""Known vertical axes of tilted agents in alignment and bundle."""

import math

import pytest
import roma
import torch
from hypothesis import given
from torch import Tensor

from coopmap.geometry import invert, rotate, transform_points
from coopmap.geometry.alignment import Alignment, align, ray_covariance
from coopmap.geometry.alignment_cost import leveling
from coopmap.geometry.bundle import bundle
from coopmap.geometry.se3 import relative_pose

from .test_alignment import assert_same, exact_matches, few, move, noisy_matches, normal, random_pose, seeds
from .test_bundle import FIRST, SECOND, equal_shares, level_poses, moved_a_little, seen_points

DOWN = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
RANGE, BEARING = 0.1, 0.01
SIGMA = math.radians(0.2)


def tilted(seed: int, degrees: float = 6.0) -> Tensor:
    """``T_level_agent`` of an agent that stands on a slope: roll and pitch of some degrees."""
    axis = torch.nn.functional.normalize(normal(seed, 3) * torch.tensor([1, 0, 1]), dim=0)
    return move(degrees, tuple(axis.tolist()))


def down_of(pose: Tensor) -> Tensor:
    """The world's y axis in the agent's frame."""
    return pose[..., 1, :3]


def solve(a: Tensor, b: Tensor, weight: Tensor, down: tuple[Tensor, ...], sigma: float | None = SIGMA) -> Alignment:
    covariances = (ray_covariance(points, RANGE, BEARING) for points in (a, b))
    return align(a, b, weight, *covariances, sigma, None, None, *down)


@few
@given(seeds)
def test_leveling_takes_away_roll_and_pitch_and_nothing_else(seed):
    down = torch.nn.functional.normalize(normal(seed, 5, 3), dim=-1)
    level = leveling(down)
    assert_same(level[..., :3, :3] @ level[..., :3, :3].mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3), 1e-12)
    assert_same(torch.linalg.det(level), torch.ones(5, dtype=torch.float64), 1e-12)
    assert_same(rotate(level, down[:, None])[:, 0], DOWN.expand(5, 3), 1e-12)
    ahead = level[..., :3, 2]
    assert_same(ahead[:, 0], torch.zeros(5, dtype=torch.float64), 1e-12)
    assert (ahead[:, 2] > 0).all()
    assert torch.equal(leveling(DOWN), torch.eye(4, dtype=torch.float64))


@few
@given(seeds)
def test_of_level_agents_nothing_changes(seed):
    seen = noisy_matches(random_pose(seed, level=True), seed)
    for with_down, without in zip(solve(*seen, (DOWN, DOWN)), solve(*seen, ()), strict=True):
        assert torch.equal(with_down, without)


@few
@given(seeds)
def test_exact_matches_give_the_exact_pose_however_agents_stand(seed):
    of_a, of_b = random_pose(seed), random_pose(seed + 1)
    pose = relative_pose(of_a, of_b)
    a, b = exact_matches(pose, seed)
    weight = torch.ones(40, dtype=torch.float64)
    down = down_of(of_a), down_of(of_b)
    found = align(a, b, weight, None, None, SIGMA, None, None, *down)
    assert_same(found.pose, pose, 1e-8)
    assert not found.degenerate
    single = align(*(value.float() for value in (a, b, weight)), None, None, SIGMA, None, None, *down)
    assert single.pose.dtype == torch.float32
    assert_same(single.pose, pose.float(), 1e-4)


@few
@given(seeds)
def test_it_is_the_alignment_of_leveled_agents(seed):
    """Solved in level frames, with pose and information turned back."""
    a, b, weight = noisy_matches(random_pose(seed, level=True), seed)
    of_a, of_b = tilted(seed), move(30, (0, 1, 0)) @ tilted(seed + 9)
    expected = solve(a, b, weight, ())
    tilted_points = rotate(invert(of_a), a), rotate(invert(of_b), b)
    found = solve(*tilted_points, weight, (down_of(of_a), down_of(of_b)))
    assert_same(found.pose, invert(of_a) @ expected.pose @ of_b)
    assert_same(found.inlier, expected.inlier)
    turn = torch.block_diag(of_a[:3, :3], of_a[:3, :3])
    assert_same(
        found.information, turn.mT @ expected.information @ turn, 1e-3 * float(expected.information.abs().max())
    )


def tilt_error_deg(found: Tensor, of_a: Tensor, of_b: Tensor) -> float:
    """Angle between where a and where b, through the found pose, have the vertical."""
    apart = down_of(of_a) - rotate(found, down_of(of_b)[None])[0]
    return math.degrees(float(apart.norm()))


def test_roll_and_pitch_are_as_good_as_what_is_known_of_them():
    """Of two agents on slopes of six degrees with few, noisy matches."""
    known, level, unknown = [], [], []
    for seed in range(20):
        of_a, of_b = tilted(seed), random_pose(seed, level=True) @ tilted(seed + 50)
        a, b, weight = noisy_matches(relative_pose(of_a, of_b), seed, number=16, wrong=2)
        for errors, down, sigma in (
            (known, (down_of(of_a), down_of(of_b)), SIGMA),
            (level, (), SIGMA),
            (unknown, (), None),
        ):
            found = solve(a, b, weight, down, sigma)
            errors.append(tilt_error_deg(found.pose, of_a, of_b))
    median = [float(torch.tensor(errors).median()) for errors in (known, level, unknown)]
    assert median[0] < 0.2
    assert median[0] < median[2] / 3
    assert median[1] > 3  # taken for level


def test_wrong_directions_show():
    of_a, of_b = tilted(0), random_pose(0, level=True) @ tilted(50)
    a, b, weight = noisy_matches(relative_pose(of_a, of_b), 0, number=16, wrong=2)
    wrong = rotate(move(5, (0, 0, 1)), down_of(of_b)[None])[0]
    found = solve(a, b, weight, (down_of(of_a), wrong))
    assert 4 < tilt_error_deg(found.pose, of_a, of_b) < 6


def test_without_matches_the_pair_is_degenerate_and_the_identity():
    a = b = torch.zeros(5, 3, dtype=torch.float64)
    found = solve(a, b, torch.zeros(5, dtype=torch.float64), (down_of(tilted(0)), down_of(tilted(1))))
    assert found.degenerate
    assert torch.equal(found.pose, torch.eye(4, dtype=torch.float64))
    assert not found.information.any()


def standing(seed: int) -> Tensor:
    """Agents that stand on slopes, the first at the origin of the level frame."""
    pose = level_poses(seed)
    return torch.cat([pose[:, k : k + 1] @ tilted(seed + k) for k in range(pose.shape[1])], dim=1)


def of_pairs(pose: Tensor) -> tuple[Tensor, Tensor]:
    return down_of(pose[:, FIRST]), down_of(pose[:, SECOND])


@few
@given(seeds)
def test_the_bundle_of_exact_matches_is_exact_on_slopes(seed):
    world = standing(seed)
    pose = relative_pose(world[:, :1], world)
    seen = seen_points(pose, seed)
    found = bundle(moved_a_little(pose, seed), equal_shares(pose), *seen, SIGMA, None, None, *of_pairs(world))
    assert_same(found, pose, 1e-5)


@few
@given(seeds)
def test_the_bundle_is_that_of_leveled_agents(seed):
    level, world = level_poses(seed), standing(seed)
    pose, turns = relative_pose(world[:, :1], world), invert(level) @ world
    seen = seen_points(level, seed, noisy=True, wrong=6)
    start = moved_a_little(level, seed)
    expected = bundle(start, equal_shares(level), *seen, SIGMA)
    for_tilted = [
        transform_points(invert(turns[:, end]), points) for end, points in zip((FIRST, SECOND), seen[:2], strict=True)
    ]
    covariances = [ray_covariance(points, 0.1, 0.02) for points in for_tilted]
    found = bundle(
        invert(turns[:, :1]) @ start @ turns,
        equal_shares(pose),
        *for_tilted,
        seen[2],
        *covariances,
        SIGMA,
        None,
        None,
        *of_pairs(world),
    )
    assert_same(found, invert(turns[:, :1]) @ expected @ turns)


def test_agents_without_a_start_stay_out():
    world = standing(3)
    pose = relative_pose(world[:, :1], world)
    start = pose.clone()
    start[:, 2] = torch.nan
    found = bundle(start, equal_shares(pose), *seen_points(pose, 3), SIGMA, None, None, *of_pairs(world))
    assert found[:, 2].isnan().any()
    assert_same(found[:, [0, 1, 3]], pose[:, [0, 1, 3]], 1e-5)


@pytest.mark.parametrize("degrees", [0.0, 5.0])
def test_gradients_pass(degrees: float):
    of_a = move(degrees, (1, 0, 0))
    a, b, weight = noisy_matches(relative_pose(of_a, random_pose(1, level=True)), 1)
    a.requires_grad_()
    found = solve(a, b, weight, (down_of(of_a), DOWN))
    roma.rotmat_to_rotvec(found.pose[:3, :3]).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad.abs().max() > 0
