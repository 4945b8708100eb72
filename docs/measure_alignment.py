"""Accuracy of alignment on simulated pairs of agents: the tables of docs/alignment.md.

python docs/measure_alignment.py
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from coopmap.geometry import invert, pose_from_quat_trans, rotation_angle, transform_points
from coopmap.geometry.alignment import Alignment, align, ray_covariance


class Scene(NamedTuple):
    """Pairs of agents: true ``T_a_b``, and matched points, exact and as measured."""

    pose: Tensor
    exact_a: Tensor
    exact_b: Tensor
    points_a: Tensor
    points_b: Tensor


def simulate(
    pairs: int,
    inliers: int = 100,
    outliers: int = 0,
    range_sigma: float = 0.1,
    bearing_deg: float = 1.0,
    tilt_deg: float = 1.0,
    seed: int = 0,
) -> Scene:
    """Agents 10 to 50 m apart, with any heading; points 3 to 60 m from both and within 15 degrees of level."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    azimuth, distance = uniform(0, 2 * math.pi, pairs), uniform(10, 50, pairs)
    trans = torch.stack([distance * azimuth.sin(), 0.3 * normal(pairs), distance * azimuth.cos()], dim=-1)
    half = uniform(0, math.pi, pairs)
    yaw = torch.stack([0 * half, half.sin(), 0 * half, half.cos()], dim=-1)
    tilt = roma.rotvec_to_unitquat(math.radians(tilt_deg) * normal(pairs, 3) * torch.tensor([1.0, 0.0, 1.0]))
    pose = pose_from_quat_trans(roma.quat_product(tilt, yaw), trans)

    number = inliers + outliers
    azimuth, elevation = uniform(0, 2 * math.pi, pairs, 40 * number), uniform(-1, 1, pairs, 40 * number) * math.pi / 12
    ray = torch.stack([elevation.cos() * azimuth.sin(), -elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1)
    exact = uniform(3, 60, pairs, 40 * number)[..., None] * ray
    exact[:, ::2] = transform_points(pose, exact[:, ::2])  # every other around b
    seen = _seen(exact) & _seen(transform_points(invert(pose), exact))
    assert (seen.sum(dim=1) >= number).all(), "too few points are seen by both"
    chosen = seen.double().topk(number, dim=1).indices
    exact_a = exact.gather(1, chosen[..., None].expand(-1, -1, 3))
    exact_b = transform_points(invert(pose), exact_a)
    exact_b[:, inliers:] = exact_b[:, inliers:].roll(1, dims=1)  # matched with another's point

    def measured(points: Tensor) -> Tensor:
        covariance = ray_covariance(points, range_sigma, math.radians(bearing_deg)) + 1e-12 * torch.eye(3).double()
        return points + (torch.linalg.cholesky(covariance) @ normal(pairs, number, 3, 1))[..., 0]

    # Of equal weights the search takes any, so outliers must not all come last.
    order = torch.randperm(number, generator=generator)
    exact_a, exact_b = exact_a[:, order], exact_b[:, order]
    return Scene(pose, exact_a, exact_b, measured(exact_a), measured(exact_b))


def _seen(points: Tensor) -> Tensor:
    distance = points.norm(dim=-1)
    return (distance > 3) & (distance < 60) & (points[..., 1].abs() < math.sin(math.pi / 12) * distance)


CAMERAS_M = ((0.0, 0.0, 2.0), (-0.9, 0.0, 0.8), (0.0, 0.0, -2.2), (0.9, 0.0, 0.8))
CAMERAS_AZIMUTH_DEG = (0.0, -100.0, 180.0, 100.0)
"""Where an agent's four cameras are, in its frame, and where they look."""


def through_cameras(exact: Tensor, bearing_sigma: float, factor: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points as the cameras of a calibrated rig see them, each by the one that looks most its way.

    Args:
        exact: ``(..., 3)`` in the agent's frame.
        bearing_sigma: error of directions, radians about each axis across the ray.
        factor: that all ranges are wrong by.
        seed: of the errors.

    Returns:
        Measured points and where their rays start.
    """
    generator = torch.Generator().manual_seed(seed)
    azimuth = torch.atan2(exact[..., :1], exact[..., 2:]).rad2deg()
    off = (azimuth - torch.tensor(CAMERAS_AZIMUTH_DEG) + 180) % 360 - 180
    origin = torch.tensor(CAMERAS_M, dtype=exact.dtype)[off.abs().argmin(dim=-1)]
    ray = exact - origin
    distance = ray.norm(dim=-1, keepdim=True)
    error = bearing_sigma * torch.randn(ray.shape, generator=generator, dtype=exact.dtype)
    direction = torch.nn.functional.normalize(ray / distance + error, dim=-1)
    return origin + factor * distance * direction, origin


def align_at_wrong_scale(
    scene: Scene, bearing_sigma: float, range_sigma: float, factor: float = 1.25, with_origins: bool = True
) -> Alignment:
    """Of agents whose ranges are all wrong by one factor; with or without what is known of where their rays start."""
    points, covariances, origins = [], [], []
    for seed, exact in enumerate((scene.exact_a, scene.exact_b)):
        measured, origin = through_cameras(exact, bearing_sigma, factor, seed)
        origin = origin if with_origins else torch.zeros_like(origin)
        points.append(measured)
        covariances.append(ray_covariance(measured - origin, range_sigma, bearing_sigma))
        origins.append(origin)
    return align(*points, torch.ones_like(points[0][..., 0]), *covariances, None, *origins)


def errors(pose: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Meters and degrees."""
    trans = (pose[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
    return trans, torch.rad2deg(rotation_angle(pose[:, :3, :3].mT @ true[:, :3, :3]))


def _table(pairs: int = 100) -> None:
    print("| range, bearing errors | outliers | isotropic | measured points | anisotropic | with tilt prior |")
    print("|---|---:|---:|---:|---:|---:|")
    for range_sigma, bearing_deg in ((0.05, 0.3), (0.1, 1.0), (0.2, 0.5), (0.3, 2.0)):
        for outliers in (0, 67, 150, 400):
            scene = simulate(pairs, 100, outliers, range_sigma, bearing_deg)
            a, b = scene.points_a, scene.points_b
            weight = torch.ones_like(a[..., 0])
            rays = [ray_covariance(points, range_sigma, math.radians(bearing_deg)) for points in (a, b)]
            answers = (
                align(a, b, weight),
                align(a, b, weight, *rays, proportional=False),
                align(a, b, weight, *rays),
                align(a, b, weight, *rays, tilt_sigma=math.radians(1.5)),
            )
            cells = []
            for answer in answers:
                trans, rotation = errors(answer.pose, scene.pose)
                wrong = (trans > 5).double().mean().item()
                cells.append(f"{trans.median():.2f}, {rotation.median():.2f}" + (f" ({wrong:.0%})" if wrong else ""))
            share = outliers / (100 + outliers)
            print(f"| {range_sigma:.0%}, {bearing_deg} deg | {share:.0%} | " + " | ".join(cells) + " |", flush=True)


def _scale_table(pairs: int = 100) -> None:
    bearings = (1e-4, 1e-3, 0.003, 0.01, 0.017, 0.03)
    print("| stated range error | " + " | ".join(f"{bearing:g} rad" for bearing in bearings) + " |")
    print("|---|" + "---:|" * len(bearings))
    scene = simulate(pairs)
    for name, range_sigma, with_origins in (("300 %", 3.0, True), ("30 %", 0.3, True), ("300 %, without", 3.0, False)):
        cells = []
        for bearing in bearings:
            found = align_at_wrong_scale(scene, bearing, range_sigma, with_origins=with_origins)
            degenerate = found.degenerate.double().mean().item()
            off = errors(found.pose, scene.pose)[0][~found.degenerate].median()
            cells.append(f"{off:.2f}" + (f" ({degenerate:.0%})" if degenerate else ""))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _time() -> None:
    scene = simulate(20, 252, 168)
    a, b = scene.points_a.float(), scene.points_b.float()
    rays = ray_covariance(a, 0.1, 0.02), ray_covariance(b, 0.1, 0.02)
    weight = torch.ones_like(a[..., 0])
    seconds = []
    for _ in range(10):
        start = time.process_time()
        align(a, b, weight, *rays, tilt_sigma=0.03)
        seconds.append(time.process_time() - start)
    print(f"20 pairs of 420 matches: {1000 * min(seconds):.0f} ms of one core")


if __name__ == "__main__":
    torch.set_num_threads(1)
    _table()
    _scale_table()
    _time()
