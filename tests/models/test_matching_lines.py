"""Lines of sight that start at cameras: the uncertainty of points along and across them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from coopmap.geometry.alignment import align, ray_covariance
from coopmap.geometry.bundle import bundle
from coopmap.geometry.cells import at_centers
from coopmap.geometry.se3 import relative_pose, transform_points
from coopmap.models.addons.matching.cells import CellPoints, LinesOfSight, cell_points, lines_of_sight
from coopmap.models.addons.matching.matches import Correspondences
from coopmap.models.addons.matching.poses import PairProblem, pair_problem
from coopmap.types import Observation, Prediction, Target

from ..rooms import exact_prediction, level_pose, observation_of, room, three_poses
from .support import make_observation
from .test_plucker import mosaic_observation

PATCH = 14
CELLS = 16
BEARING_CELLS = 0.2
CELL_ANGLE = torch.tensor(0.1)


def seen_from(observation: Observation, seed: int = 0) -> Prediction:
    """Ranges of 4 to 34 m."""
    depth = 4 + 30 * torch.rand(observation.rays.shape[:-1], generator=torch.Generator().manual_seed(seed)).double()
    flags = torch.ones(len(depth), dtype=torch.bool)
    known = torch.ones_like(depth, dtype=torch.bool)
    pose = torch.eye(4).expand(*depth.shape[:2], 4, 4)
    return exact_prediction(Target(observation.rays.double(), depth, known, known, pose, flags, flags))


def four_cameras(agents: int = 2) -> Observation:
    """Views of 2 x 2 cells, each with a place and a direction of its own."""
    observation = make_observation(1, 4 * agents, 2 * PATCH, 2 * PATCH)
    turned = [level_pose(0.5 * view - 1.5, 2.0 - view, 90.0 * view) for view in range(4)]
    rig = torch.stack(turned).repeat(agents, 1, 1)[None]
    return dataclasses.replace(observation, rig_pose=rig, slot=torch.arange(4).repeat(agents)[None])


def problem_of(points: CellPoints, sigma: Tensor, lines: LinesOfSight | None) -> PairProblem:
    """Two agents; cell k of one matches cell k of the other, at their centers."""
    cells = torch.arange(points.center.shape[2])[None, None, :, None].expand(1, 1, -1, 2)
    weight = torch.ones(cells.shape[:-1], dtype=torch.float64)
    found = Correspondences(cells, points.center[:, :1], points.center[:, 1:], weight)
    return pair_problem(found, sigma, CELL_ANGLE, None, lines)


def scaled(prediction: Prediction, factor: float) -> Prediction:
    return dataclasses.replace(prediction, depth=factor * prediction.depth, points_view=factor * prediction.points_view)


@pytest.mark.parametrize(
    ("observation", "rays"),
    [
        (make_observation(1, 2, 2 * PATCH, 8 * PATCH), "calibrated"),
        (mosaic_observation(views=2, rows=2, columns=8), "calibrated"),
        (four_cameras(), "predicted"),
    ],
    ids=["panorama", "mosaic", "cameras"],
)
def test_a_point_is_uncertain_as_the_network_and_the_camera_make_it(observation: Observation, rays: str):
    """Along: how far the point moves with the predicted range. Across: the angle times the distance from the camera."""
    prediction, sigma = seen_from(observation), 0.1 + 0.3 * torch.rand(1, 2, CELLS).double()
    lines = lines_of_sight(observation, PATCH, rays)
    points = cell_points(prediction, observation, PATCH, rays)
    problem = problem_of(points, sigma, lines)
    farther, nearer = (
        cell_points(scaled(prediction, factor), observation, PATCH, rays).center for factor in (1 + 1e-5, 1 - 1e-5)
    )
    along = sigma[..., None] * (farther - nearer) / 2e-5
    sight = points.center - (0.0 if lines is None else lines.origin.double())
    # the point moves along its line of sight
    assert torch.linalg.cross(along, sight).norm(dim=-1).max() < 1e-4 * (along.norm(dim=-1) * sight.norm(dim=-1)).min()
    across = (BEARING_CELLS * CELL_ANGLE).double() ** 2 * (
        sight.square().sum(dim=-1)[..., None, None] * torch.eye(3) - sight[..., None] * sight[..., None, :]
    )
    expected = along[..., None] * along[..., None, :] + across
    for agent, covariance in enumerate((problem.covariance_i, problem.covariance_j)):
        torch.testing.assert_close(covariance[:, 0], expected[:, agent], rtol=1e-4, atol=1e-4)


def test_a_point_seen_from_ahead_of_the_center_by_hand():
    """10 m ahead of the center, 7.5 m ahead of the camera: 10 % of 10 m along, 0.02 of 7.5 m across."""
    points = torch.tensor([0.0, 0.0, 10.0]).expand(1, 2, CELLS, 3).double()
    origin = torch.tensor([0.0, 0.0, 2.5]).expand(1, 2, CELLS, 3)
    sigma = torch.full((1, 2, CELLS), 0.1).double()
    for from_center, along in ((True, 1.0), (False, 0.75)):
        lines = LinesOfSight(origin, from_center)
        covariance = problem_of(CellPoints(points, points[..., None, :]), sigma, lines).covariance_i
        expected = torch.diag(torch.tensor([0.15, 0.15, along]).double().square())
        torch.testing.assert_close(covariance[0, 0, 0], expected, rtol=1e-6, atol=1e-9)


def test_exact_points_give_the_exact_pose_from_any_origins():
    pose = three_poses().double()[:, :2]
    true = relative_pose(pose[:, 0], pose[:, 1])
    observation = mosaic_observation(views=2, rows=2, columns=8)
    lines = lines_of_sight(observation, PATCH, "calibrated")
    there = cell_points(seen_from(observation), observation, PATCH, "calibrated").center[:, 1]
    center = torch.stack([transform_points(true, there), there], dim=1)
    sigma = 0.1 + 0.3 * torch.rand(1, 2, CELLS).double()
    problem = problem_of(CellPoints(center, center[..., None, :]), sigma, lines)
    assert problem.origin_i is not None
    assert problem.origin_i.norm(dim=-1).min() > 0.1
    aligned = align(*problem)
    assert not aligned.degenerate.any()
    torch.testing.assert_close(aligned.pose[:, 0], true, rtol=0, atol=1e-6)
    moved = true.clone()
    moved[:, 0, 3] += 0.3
    start = torch.stack([torch.eye(4, dtype=torch.float64)[None], moved], dim=1)
    found = bundle(start, torch.ones(1, 1, dtype=torch.float64), *problem)
    torch.testing.assert_close(found[:, 1], true, rtol=0, atol=1e-6)


def test_panoramas_and_fused_maps_look_from_the_agents_origin():
    """So their pairs are solved as without this: origins of zero, given, change nothing."""
    target = room(three_poses()[:, :2])
    observation = observation_of(target)
    assert lines_of_sight(observation, PATCH, "calibrated") is None
    cameras = torch.eye(4).expand(1, 2, 4, 4, 4)
    fused = dataclasses.replace(observation, images=torch.zeros(1, 2, 4, 3, 56, 56), camera_pose=cameras)
    assert lines_of_sight(fused, PATCH, "calibrated") is None
    points = cell_points(exact_prediction(target), observation, PATCH, "calibrated")
    noise = 1 + 0.1 * torch.rand(*points.center.shape[:3], 1, generator=torch.Generator().manual_seed(0))
    noisy = CellPoints(points.center * noise, points.parts)
    sigma = torch.full(points.center.shape[:3], 0.1)
    problem = problem_of(noisy, sigma, None)
    assert problem.origin_i is None
    assert problem.origin_j is None
    assert torch.equal(problem.covariance_i, ray_covariance(problem.points_i, 0.1, BEARING_CELLS * CELL_ANGLE))
    at_origin = problem_of(noisy, sigma, LinesOfSight(torch.zeros_like(noisy.center), from_center=True))
    for one, other in zip(align(*problem), align(*at_origin), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_predicted_rays_of_a_mosaic_start_at_the_agents_origin():
    assert lines_of_sight(mosaic_observation(), PATCH, "predicted") is None


def test_origins_belong_to_the_cameras_of_their_cells():
    observation = mosaic_observation(views=2, rows=2, columns=8)
    lines = lines_of_sight(observation, PATCH, "calibrated")
    assert lines is not None
    of_columns = observation.camera_pose[:, :, [1, 0, 3, 2], :3, 3].repeat_interleave(2, dim=2)  # left, front, ...
    assert torch.equal(lines.origin.unflatten(2, (2, 8)), of_columns[:, :, None].expand(-1, -1, 2, -1, -1))
    cameras = four_cameras()
    lines = lines_of_sight(cameras, PATCH, "calibrated")
    assert lines is not None
    start = cameras.rig_pose[:, :, None, None, :3, 3].expand(-1, -1, 2 * PATCH, 2 * PATCH, -1)
    assert torch.equal(lines.origin, at_centers(start, PATCH).unflatten(1, (2, 4)).flatten(2, 3))
