"""Alignment by its laws."""

import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.geometry import invert, pose_from_quat_trans, rotate, rotation_angle, transform_points
from coopmap.geometry.alignment import Alignment, align, isotropic_covariance, ray_covariance, ray_matches
from coopmap.geometry.alignment_cost import Cost, residuals_at

seeds = st.integers(0, 2**31)
few = settings(max_examples=6, deadline=None)
RANGE, BEARING = 0.1, 0.01


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_pose(seed: int, level: bool = False) -> Tensor:
    quat = normal(seed, 4) * torch.tensor([0.0, 1.0, 0.0, 1.0] if level else [1.0] * 4)
    return pose_from_quat_trans(torch.nn.functional.normalize(quat, dim=-1), 10 * normal(seed + 1, 3))


def move(degrees: float, axis: tuple[float, float, float], trans: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    direction = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    quat = roma.rotvec_to_unitquat(math.radians(degrees) * direction)
    return pose_from_quat_trans(quat, torch.tensor(trans, dtype=torch.float64))


def exact_matches(pose: Tensor, seed: int, number: int = 40) -> tuple[Tensor, Tensor]:
    points_b = 10 * normal(seed + 2, number, 3)
    return transform_points(pose, points_b), points_b


def noisy_matches(pose: Tensor, seed: int, number: int = 60, wrong: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Points of both with errors along and across their rays, and weights; the last match others' points."""
    a, b = exact_matches(pose, seed, number)
    b[-wrong:] = b[-wrong:].roll(1, dims=0)

    def noisy(points: Tensor, seed: int) -> Tensor:
        covariance = ray_covariance(points, RANGE, BEARING)
        return points + (torch.linalg.cholesky(covariance) @ normal(seed, number, 3, 1))[..., 0]

    weight = 0.2 + torch.rand(number, generator=generator(seed + 5), dtype=torch.float64)
    return noisy(a, seed + 3), noisy(b, seed + 4), weight


def align_rays(a: Tensor, b: Tensor, weight: Tensor, tilt_sigma: float | None = None) -> Alignment:
    return align(a, b, weight, ray_covariance(a, RANGE, BEARING), ray_covariance(b, RANGE, BEARING), tilt_sigma)


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@given(seeds)
def test_where_ranges_say_nothing_a_match_is_an_epipolar_residual(seed):
    """How far both lines of sight pass each other, whatever the ranges are."""
    pose, sigma = random_pose(seed), 5.0
    rays = torch.nn.functional.normalize(normal(seed + 2, 2, 400, 3), dim=-1)
    points = (5 + 15 * torch.rand(2, 400, 1, generator=generator(seed), dtype=torch.float64)) * rays
    covariance = sigma**2 * torch.eye(3, dtype=torch.float64) + 1e5 * points[..., :, None] * points[..., None, :]
    matches = ray_matches(*points, torch.ones(400, dtype=torch.float64), *covariance, proportional=False)
    cost = Cost(tilt_sigma=None, width=3.0, proportional=False, corrected=False)
    squared = residuals_at(pose[None], matches, cost).squared[0]
    normals = torch.linalg.cross(rays[0], rotate(pose, rays[1]))
    apart = (torch.nn.functional.normalize(normals, dim=-1) @ pose[:3, 3]).square() / (2 * sigma**2)
    crossing = normals.norm(dim=-1) > 0.3
    torch.testing.assert_close(squared[crossing], apart[crossing], rtol=1e-2, atol=2e-2)


@few
@given(seeds, st.booleans())
def test_exact_matches_give_the_exact_pose(seed, level):
    pose = random_pose(seed, level)
    a, b = exact_matches(pose, seed)
    weight = torch.rand(40, generator=generator(seed), dtype=torch.float64) + 0.1
    tilt_sigma = 0.02 if level else None
    result = align(a, b, weight, tilt_sigma=tilt_sigma)
    assert not result.degenerate
    assert_same(result.pose, pose, 1e-9)
    assert_same(result.inlier, torch.ones_like(weight), 1e-9)
    assert_same(result.score, torch.ones((), dtype=torch.float64), 1e-9)
    single = align(a.float(), b.float(), weight.float(), tilt_sigma=tilt_sigma)
    assert single.pose.dtype == torch.float32
    assert_same(single.pose, pose.float(), 1e-5)


@few
@given(seeds)
def test_without_robustness_and_with_equal_errors_it_is_weighted_procrustes(seed):
    a, b, weight = noisy_matches(random_pose(seed), seed, wrong=2)
    covariance = torch.eye(3, dtype=torch.float64).expand(60, 3, 3)
    result = align(a, b, weight, covariance, covariance, proportional=False, width=math.inf)
    rotation, trans = roma.rigid_points_registration(b, a, weights=weight)
    assert_same(result.pose[:3, :3], rotation, 1e-9)
    assert_same(result.pose[:3, 3], trans, 1e-7)
    # The information of the translation is a half per match: the sum of two unit variances.
    assert_same(result.information[3:, 3:], 0.5 * weight.sum() * torch.eye(3, dtype=torch.float64), 1e-3)


@few
@given(seeds)
def test_equivariant_under_rigid_motions_of_either_agent(seed):
    pose = random_pose(seed)
    a, b, weight = noisy_matches(pose, seed)
    of_a, of_b = random_pose(seed + 7), random_pose(seed + 8)
    before = align_rays(a, b, weight)
    covariances = [
        of[:3, :3] @ ray_covariance(points, RANGE, BEARING) @ of[:3, :3].mT for of, points in ((of_a, a), (of_b, b))
    ]
    after = align(
        transform_points(of_a, a),
        transform_points(of_b, b),
        weight,
        *covariances,
        origin_a=of_a[:3, 3].expand_as(a),
        origin_b=of_b[:3, 3].expand_as(b),
    )
    assert_same(after.pose, of_a @ before.pose @ invert(of_b))
    assert_same(after.inlier, before.inlier)


@few
@given(seeds)
def test_quaternions_of_either_sign_turn_an_agent_alike(seed):
    """And composed from two of either sign, they are the same true pose: the same alignment and the same error."""
    quats, trans = torch.nn.functional.normalize(normal(seed, 2, 4), dim=-1), 10 * normal(seed + 1, 3)
    a, b, weight = noisy_matches(pose_from_quat_trans(quats[0], trans), seed)
    found = []
    for sign, sign_of_turn in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        turn = sign_of_turn * quats[1]
        true = pose_from_quat_trans(roma.quat_product(sign * quats[0], roma.quat_conjugation(turn)), trans)
        result = align_rays(a, rotate(pose_from_quat_trans(turn, 0 * trans), b), weight)
        error = rotation_angle(true[:3, :3].mT @ result.pose[:3, :3])
        assert error < 0.05
        found.append((result.pose, result.information, result.inlier, error))
    for other in found[1:]:
        assert all(torch.equal(one, same) for one, same in zip(found[0], other, strict=True))


@few
@given(seeds, st.floats(-180, 180), st.floats(-180, 180))
def test_with_a_tilt_prior_equivariant_under_turns_about_the_vertical(seed, yaw_a, yaw_b):
    a, b, weight = noisy_matches(move(3, (1, 0, 0.5)) @ random_pose(seed, level=True), seed)
    of_a, of_b = move(yaw_a, (0, 1, 0)), move(yaw_b, (0, 1, 0))
    before = align_rays(a, b, weight, tilt_sigma=0.02)
    after = align_rays(rotate(of_a, a), rotate(of_b, b), weight, tilt_sigma=0.02)
    assert_same(after.pose, of_a @ before.pose @ invert(of_b))
    assert_same(after.information[3:, 3:], rotate_both(of_a, before.information[3:, 3:]), 1e-4)


def rotate_both(pose: Tensor, matrix: Tensor) -> Tensor:
    return pose[:3, :3] @ matrix @ pose[:3, :3].mT


@few
@given(seeds, st.sampled_from([None, 0.02]))
def test_swapped_roles_give_the_inverse(seed, tilt_sigma):
    a, b, weight = noisy_matches(random_pose(seed, level=tilt_sigma is not None), seed)
    forward, backward = align_rays(a, b, weight, tilt_sigma), align_rays(b, a, weight, tilt_sigma)
    assert_same(backward.pose, invert(forward.pose))
    assert_same(backward.inlier, forward.inlier)


@few
@given(seeds, st.floats(1e-4, 1e4))
def test_order_and_scale_of_weights_do_not_matter(seed, scale):
    a, b, weight = noisy_matches(random_pose(seed), seed)
    order = torch.randperm(60, generator=generator(seed))
    before, after = align_rays(a, b, weight), align_rays(a[order], b[order], scale * weight[order])
    assert_same(after.pose, before.pose)
    assert_same(after.inlier, before.inlier[order])
    assert_same(after.score, before.score)
    torch.testing.assert_close(after.information, scale * before.information, rtol=1e-4, atol=1e-6 * scale)


def test_matches_without_weight_and_values_that_are_not_finite_have_no_influence():
    a, b, weight = noisy_matches(random_pose(0), 0)
    before = align(a, b, weight)
    more_a, more_b = torch.cat([a, torch.full((3, 3), 1e3)]), torch.cat([b, normal(9, 3, 3)])
    more_a[-1], more_b[-2] = torch.nan, torch.inf
    points = more_a.requires_grad_()
    after = align(points, more_b, torch.cat([weight, torch.tensor([0.0, 1.0, 1.0])]))
    assert_same(after.pose, before.pose, 1e-9)
    assert after.inlier[60:].tolist() == [0, 0, 0]
    after.pose.sum().backward()
    assert points.grad.isfinite().all()
    assert points.grad[60:].abs().max() == 0


def test_pairs_of_a_batch_do_not_influence_one_another():
    matches = [noisy_matches(random_pose(seed), seed) for seed in range(6)]
    a, b, weight = (torch.stack(values).unflatten(0, (2, 3)) for values in zip(*matches, strict=True))
    together = align_rays(a, b, weight)
    assert together.pose.shape == (2, 3, 4, 4)
    assert together.information.shape == (2, 3, 6, 6)
    assert together.degenerate.shape == together.score.shape == (2, 3)
    assert_same(together.pose[1, 2], align_rays(*matches[5]).pose, 1e-9)
    again = align_rays(a, b, weight)
    assert all(torch.equal(one, other) for one, other in zip(together, again, strict=True))


def on_a_line(direction: tuple[float, float, float]) -> Tensor:
    return torch.linspace(-20, 30, 20, dtype=torch.float64)[:, None] * torch.tensor(direction, dtype=torch.float64)


LEVEL, UPRIGHT = (0.6, 0.0, 0.8), (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("points", "tilt_sigma", "degenerate"),
    [
        (torch.zeros(0, 3).double(), 0.02, True),
        (normal(0, 1, 3), 0.02, True),
        (10 * normal(0, 2, 3), None, True),
        (10 * normal(0, 2, 3), 0.02, True),  # which of two matches is wrong, nobody could tell
        (10 * normal(0, 3, 3), None, False),
        (torch.ones(20, 3).double(), 0.02, True),
        (on_a_line(LEVEL), None, True),
        (on_a_line(LEVEL) + 2, None, True),
        (on_a_line(LEVEL) + 2, 0.02, False),
        (on_a_line(UPRIGHT) + 2, 0.02, True),
        (10 * normal(0, 20, 3) * torch.tensor([1, 0, 1]), None, False),  # a plane
        (10 * normal(0, 20, 3) * torch.tensor([1, 1, 0]) + 5, None, False),
    ],
)
def test_what_does_not_determine_the_pose_is_said(points, tilt_sigma, degenerate):
    pose = move(70, (0, 1, 0), (5, 0.5, 20))
    a = transform_points(pose, points).requires_grad_()
    b = points.clone().requires_grad_()
    weight = torch.ones(len(points), dtype=torch.float64, requires_grad=True)
    result = align(a, b, weight, tilt_sigma=tilt_sigma)
    assert result.degenerate.item() == degenerate
    if degenerate:
        assert torch.equal(result.pose, torch.eye(4).double())
        assert result.information.abs().max() == result.inlier.sum() == result.score == 0
    else:
        assert_same(result.pose, pose)
    sum(value.sum() for value in result if value.dtype != torch.bool).backward()
    assert all(value.grad.isfinite().all() for value in (a, b, weight))


def test_all_weights_zero_and_no_pairs():
    a, b, weight = noisy_matches(random_pose(0), 0)
    result = align(a, b, 0 * weight)
    assert result.degenerate
    assert result.score == 0
    assert align(a.new_zeros(0, 5, 3), a.new_zeros(0, 5, 3), a.new_zeros(0, 5)).pose.shape == (0, 4, 4)


@pytest.mark.parametrize("tilt_sigma", [None, 0.02])
@pytest.mark.parametrize("seed", range(2))
def test_gradients_are_those_of_the_minimum(seed, tilt_sigma):
    a, b, weight = noisy_matches(move(1, (1, 0, 0)) @ random_pose(seed, level=True), seed, number=12, wrong=2)
    sigma = torch.full((12,), RANGE, dtype=torch.float64)

    def pose_of(a: Tensor, b: Tensor, weight: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        rays = ray_covariance(a, sigma, BEARING), ray_covariance(b, sigma, BEARING)
        result = align(a, b, weight, *rays, tilt_sigma)
        return result.pose[:3], result.inlier, result.score, 1e-3 * result.information

    inputs = tuple(value.clone().requires_grad_() for value in (a, b, weight, sigma))
    assert torch.autograd.gradcheck(pose_of, inputs, eps=1e-5, atol=1e-5, rtol=1e-3, fast_mode=True)


def test_nothing_waits_for_the_device():
    """Values that do not exist cannot be looked at."""
    with FakeTensorMode() as mode:
        a, b, weight = (mode.from_tensor(value) for value in noisy_matches(random_pose(0), 0))
        assert align(a, b, weight, tilt_sigma=0.02).pose.shape == (4, 4)


def test_ray_covariance_is_along_and_across_the_ray():
    points = torch.tensor([[0.0, 0.0, 20.0], [3.0, 0.0, 4.0]], dtype=torch.float64)
    covariance = ray_covariance(points, torch.tensor([0.1, 0.2], dtype=torch.float64), 0.01)
    assert_same(covariance[0], torch.diag(torch.tensor([0.04, 0.04, 4.0], dtype=torch.float64)), 1e-12)
    assert_same(torch.linalg.eigvalsh(covariance[1]).sqrt(), torch.tensor([0.05, 0.05, 1.0]).double(), 1e-8)
    ray = points[1] / 5
    assert_same(ray @ covariance[1] @ ray, torch.tensor(1.0).double(), 1e-12)
    assert_same(isotropic_covariance(points)[0], 1.4**2 * torch.eye(3).double(), 1e-3)
