"""The bundle of all pairs of a frame by its laws."""

import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.geometry import invert, pose_from_quat_trans, transform_points
from coopmap.geometry.alignment import align, ray_covariance
from coopmap.geometry.bundle import bundle
from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.geometry.se3 import relative_pose

seeds = st.integers(0, 2**31)
few = settings(max_examples=6, deadline=None)
AGENTS, MATCHES = 4, 60
FIRST, SECOND = torch.triu_indices(AGENTS, AGENTS, offset=1)
RANGE, BEARING = 0.1, 0.02


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level_poses(seed: int, frames: int = 1) -> Tensor:
    """Agents with any heading, some 10 m apart, the first at the origin."""
    quat = torch.nn.functional.normalize(normal(seed, frames, AGENTS, 4) * torch.tensor([0, 1, 0, 1]), dim=-1)
    pose = pose_from_quat_trans(quat, normal(seed + 1, frames, AGENTS, 3) * torch.tensor([12, 0.2, 12]))
    return relative_pose(pose[:, :1], pose)


def seen_points(pose: Tensor, seed: int, noisy: bool = False, wrong: int = 0) -> tuple[Tensor, ...]:
    """Of each pair, points of both agents, weights and covariances; the last matches are others' points."""
    frames, pairs = len(pose), len(FIRST)
    world = 15 * normal(seed + 2, frames, pairs, MATCHES, 3) * torch.tensor([1, 0.15, 1])
    a, b = (transform_points(invert(pose[:, end]), world) for end in (FIRST, SECOND))
    if wrong:
        b[..., -wrong:, :] = b[..., -wrong:, :].roll(1, dims=-2)
    if noisy:
        a, b = (
            points * (RANGE * normal(seed + k, *points.shape[:-1], 1)).exp()
            + BEARING * points.norm(dim=-1, keepdim=True) * normal(seed + k + 1, *points.shape)
            for k, points in ((3, a), (5, b))
        )
    weight = 0.2 + normal(seed + 7, frames, pairs, MATCHES).abs()
    return a, b, weight, ray_covariance(a, RANGE, BEARING), ray_covariance(b, RANGE, BEARING)


def moved_a_little(pose: Tensor, seed: int, meters: float = 0.5, degrees: float = 2.0) -> Tensor:
    turn = roma.rotvec_to_unitquat(math.radians(degrees) * normal(seed + 11, *pose.shape[:2], 3))
    return pose @ pose_from_quat_trans(turn, meters * normal(seed + 12, *pose.shape[:2], 3))


def equal_shares(pose: Tensor) -> Tensor:
    return torch.ones(len(pose), len(FIRST), dtype=torch.float64)


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0, equal_nan=True)


@few
@given(seeds, st.sampled_from([0, 6]))
def test_exact_matches_give_the_exact_poses(seed, wrong):
    pose = level_poses(seed)
    seen = seen_points(pose, seed, wrong=wrong)
    # far from ambiguous: as wrong as a bundle of right matches can make up for
    found = bundle(moved_a_little(pose, seed), equal_shares(pose), *seen, tilt_sigma=0.05)
    assert_same(found, pose, 1e-5 if not wrong else 0.05)
    single = bundle(*(value.float() for value in (pose, equal_shares(pose), *seen_points(pose, seed))), tilt_sigma=0.05)
    assert single.dtype == torch.float64
    assert_same(single, pose, 1e-4)


@few
@given(seeds)
def test_the_frame_of_the_start_does_not_matter(seed):
    pose = level_poses(seed)
    seen, start = seen_points(pose, seed, noisy=True, wrong=6), moved_a_little(pose, seed)
    whole = level_poses(seed + 50)[:, 1:2]
    assert_same(bundle(whole @ start, equal_shares(pose), *seen), bundle(start, equal_shares(pose), *seen))


@few
@given(seeds, st.integers(0, AGENTS - 1))
def test_equivariant_under_a_rigid_motion_of_any_agent(seed, agent):
    """Its points are given in another frame, so its pose is another; all else stays."""
    pose = level_poses(seed)
    a, b, weight, covariance_a, covariance_b = seen_points(pose, seed, noisy=True)
    start = moved_a_little(pose, seed)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = roma.rotvec_to_rotmat(normal(seed + 20, 3)), 3 * normal(seed + 21, 3)
    seen, origins = [], []
    for end, points, covariance in ((FIRST, a, covariance_a), (SECOND, b, covariance_b)):
        moves = torch.where((end == agent)[:, None, None], motion, torch.eye(4, dtype=torch.float64))
        turn = moves[:, None, :3, :3]
        seen += [transform_points(moves, points), turn @ covariance @ turn.mT]
        origins.append(moves[:, None, :3, 3].expand_as(points))  # where the rays start
    other = start.clone()
    other[:, agent] = start[:, agent] @ invert(motion)
    before = bundle(start, equal_shares(pose), a, b, weight, covariance_a, covariance_b)
    after = bundle(other, equal_shares(pose), seen[0], seen[2], weight, seen[1], seen[3], None, *origins)
    before[:, agent] = before[:, agent] @ invert(motion)
    assert_same(after, relative_pose(before[:, :1], before))


@few
@given(seeds, st.permutations(range(AGENTS)))
def test_agents_in_another_order_get_the_same_poses(seed, order):
    pose = level_poses(seed)
    seen, start = seen_points(pose, seed, noisy=True, wrong=6), moved_a_little(pose, seed)
    before = bundle(start, equal_shares(pose), *seen, tilt_sigma=0.05)
    place = {(int(i), int(j)): pair for pair, (i, j) in enumerate(zip(FIRST, SECOND, strict=True))}
    sources = [(order[i], order[j]) for i, j in zip(FIRST, SECOND, strict=True)]
    pairs = [place[min(ends), max(ends)] for ends in sources]
    turned = torch.tensor([first > second for first, second in sources])

    def taken(own: Tensor, other: Tensor) -> Tensor:
        return torch.where(turned.reshape(1, -1, *[1] * (own.dim() - 2)), other[:, pairs], own[:, pairs])

    a, b, weight, of_a, of_b = seen
    again = (taken(a, b), taken(b, a), weight[:, pairs], taken(of_a, of_b), taken(of_b, of_a))
    after = bundle(start[:, list(order)], equal_shares(pose), *again, tilt_sigma=0.05)
    before = before[:, list(order)]
    assert_same(after, relative_pose(before[:, :1], before))


@few
@given(seeds, st.integers(0, 5), st.sampled_from(["share", "weight"]))
def test_a_pair_without_information_has_no_influence(seed, pair, how):
    """Its points may be anything."""
    pose = level_poses(seed)
    a, b, weight, *covariances = seen_points(pose, seed, noisy=True)
    start, share = moved_a_little(pose, seed), equal_shares(pose)
    if how == "share":
        share[:, pair] = 0.0
    else:
        weight[:, pair] = 0.0
    other = a.clone()
    other[:, pair] = torch.nan if how == "share" else 7.0
    before = bundle(start, share, a, b, weight, *covariances)
    assert before.isfinite().all()
    assert_same(bundle(start, share, other, b, weight, *covariances), before, 1e-12)
    share[:, pair] = torch.nan if how == "share" else 1e9
    assert_same(bundle(start, share, a, b, weight, *covariances), before, 1e-6)


def test_agents_that_nothing_links_stay_and_what_is_not_known_is_said():
    pose = level_poses(0, frames=3)
    seen, start, share = seen_points(pose, 0), moved_a_little(pose, 0), equal_shares(pose)
    share[0, SECOND == 3] = 0.0  # nothing of agent 3
    start[1, 2] = torch.nan  # nobody knows where agent 2 is
    share[2] = 0.0  # nothing at all
    found = bundle(start, share, *seen)
    relative = relative_pose(start[:, :1], start)
    assert_same(found[0, :3], pose[0, :3])
    assert_same(found[0, 3], relative[0, 3])
    assert found[1, 2].isnan().all()
    assert_same(found[1, [0, 1, 3]], pose[1, [0, 1, 3]])
    assert_same(found[2], relative[2], 1e-12)


def test_frames_of_a_batch_do_not_influence_one_another():
    pose = level_poses(3, frames=3)
    seen, start = seen_points(pose, 3, noisy=True, wrong=6), moved_a_little(pose, 3)
    together = bundle(start, equal_shares(pose), *seen)
    assert torch.equal(together, bundle(start, equal_shares(pose), *seen))
    one = bundle(start[1:2], equal_shares(pose)[1:2], *(value[1:2] for value in seen))
    assert_same(together[1:2], one, 1e-9)


@pytest.mark.parametrize("agents", [1, 2])
def test_few_agents(agents):
    """A single agent is at the origin; of two, the bundle is the alignment."""
    pose = level_poses(4)[:, :agents]
    seen = tuple(value[:, : agents - 1] for value in seen_points(level_poses(4), 4, noisy=True))
    found = bundle(pose, torch.ones(1, agents - 1), *seen)
    assert_same(found[:, 0], torch.eye(4).double()[None])
    if agents == 2:
        assert_same(found[:, 1], align(*seen).pose[:, 0])


def test_no_worse_than_averaging_pairs_and_better_where_ranges_are_uncertain():
    pose = level_poses(5, frames=24)
    seen = seen_points(pose, 5, noisy=True, wrong=20)
    alone = align(*seen, tilt_sigma=0.05)
    measured = torch.eye(4, dtype=torch.float64).repeat(24, AGENTS, AGENTS, 1, 1)
    weight = torch.zeros(24, AGENTS, AGENTS, dtype=torch.float64)
    measured[:, FIRST, SECOND], weight[:, FIRST, SECOND] = alone.pose, (~alone.degenerate).double()
    averaged = average_relative_poses(measured[:, None], weight[:, None])
    together = bundle(averaged, equal_shares(pose), *seen, tilt_sigma=0.05)

    def median(found: Tensor) -> float:
        errors = relative_pose(found[:, FIRST], found[:, SECOND]) - relative_pose(pose[:, FIRST], pose[:, SECOND])
        return errors[..., :3, 3].norm(dim=-1).median().item()

    assert median(together) < 0.95 * median(averaged)


def test_nothing_waits_for_the_device():
    """Values that do not exist cannot be looked at."""
    pose = level_poses(0)
    values = pose, equal_shares(pose), *seen_points(pose, 0)
    with FakeTensorMode() as mode:
        assert bundle(*map(mode.from_tensor, values), tilt_sigma=0.05).shape == (1, AGENTS, 4, 4)
