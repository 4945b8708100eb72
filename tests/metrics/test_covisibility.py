import math

import pytest
import torch

from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.metrics.covisibility import covisibility

from ..rooms import in_quarters

CAMERA = PanoramaCamera(126, 504, math.pi / 2)
HEIGHT_M, REACH_M = 1.9, 30.0


def rays():
    return torch.from_numpy(camera_rays(CAMERA)).float()


def on_a_plain(records, *positions, wall_of=None, keep=1.0, every=1):
    """Agents over flat ground, known up to 30 m; agent ``wall_of`` stands inside a sphere of 3 m.

    Their panoramas have every pixel, or every second one, ...
    """
    ray = rays()[::every, ::every].expand(1, len(positions), -1, -1, -1)
    depth = torch.where(ray[..., 1] > 0, HEIGHT_M / ray[..., 1].clamp(min=1e-6), 0.0)
    depth = torch.where(depth < REACH_M, depth, 0.0)
    if wall_of is not None:
        depth[:, wall_of] = 3.0
    depth *= torch.rand(depth.shape, generator=torch.Generator().manual_seed(0)) < keep
    pose = torch.stack([records.yaw_pose(90.0 * i, x, 0, z) for i, (x, z) in enumerate(positions)])[None]
    return records.target(depth, pose=pose, rays=ray)


def share_within_reach(target, i, j):
    """Of i's points those that j's panorama covers: on the plain between its lowest row and its reach."""
    points = target.points_world[0, i][target.valid[0, i]]
    flat = (points - target.pose[0, j, :3, 3])[:, [0, 2]].norm(dim=-1)
    distance = torch.hypot(flat, torch.tensor(HEIGHT_M))
    return ((flat > HEIGHT_M) & (distance < REACH_M)).float().mean().item()


def test_on_a_plain_one_sees_what_lies_within_its_reach(records):
    target = on_a_plain(records, (0.0, 0.0), (0.0, 12.0), (40.0, 0.0), (0.0, 100.0))
    measured = covisibility(target)[0].tolist()
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [(share_within_reach(target, i, j) + share_within_reach(target, j, i)) / 2 for i, j in pairs]
    assert measured == pytest.approx(expected, abs=0.03)
    assert expected[0] > 0.9
    assert 0.02 < expected[1] < 0.2
    assert measured[2] == measured[4] == measured[5] == 0


def test_cameras_see_what_their_panorama_sees(records):
    """Cameras with few columns each: together they have as many as the panorama."""
    target = on_a_plain(records, (0.0, 0.0), (0.0, 12.0), (9.0, 5.0), wall_of=1, every=2)
    torch.testing.assert_close(covisibility(in_quarters(target)), covisibility(target), rtol=0, atol=1e-12)


def test_agents_in_one_place_share_everything_and_behind_walls_nothing(records):
    assert covisibility(on_a_plain(records, (0.0, 0.0), (0.0, 0.0)))[0].item() > 0.99
    # what remains is the foot of the sphere, where it meets the ground
    assert covisibility(on_a_plain(records, (0.0, 0.0), (0.0, 12.0), wall_of=1))[0].item() < 0.1


def test_sparse_depth_says_less_but_not_nothing(records):
    dense = covisibility(on_a_plain(records, (0.0, 0.0), (0.0, 12.0)))[0].item()
    sparse = covisibility(on_a_plain(records, (0.0, 0.0), (0.0, 12.0), keep=0.2))[0].item()
    assert dense - 0.25 < sparse < dense + 0.02


def test_nothing_known_is_not_zero_and_a_single_agent_has_no_pair(records):
    target = on_a_plain(records, (0.0, 0.0), (0.0, 12.0), keep=0.0)
    assert covisibility(target).isnan().all()
    target = on_a_plain(records, (0.0, 0.0), (0.0, 12.0), (2.0, 12.0))
    target.depth[:, 1], target.valid[:, 1] = 0.0, False
    assert covisibility(target).isnan().tolist() == [[True, False, True]]
    assert covisibility(on_a_plain(records, (0.0, 0.0))).shape == (1, 0)
