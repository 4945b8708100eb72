"""Depth among measured points: right on planes, absent where points disagree, points themselves untouched."""

from pathlib import Path

import numpy as np
import pytest

from coopmap.data.opv2v import read_agent
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry.cameras import PanoramaCamera
from coopmap.geometry.densify import densified
from coopmap.geometry.panorama import PanoramaSpec, build_warp
from coopmap.geometry.targets import placed_points

CAMERA = PanoramaCamera(126, 504, np.pi / 2)
SPEC = PanoramaSpec(CAMERA)
REAL_FRAME = Path(__file__).parents[3] / "shared" / "real" / "carla_five"


@pytest.fixture
def dense(real_rig):
    """Points that an agent measures, placed, and densified: pixels and points of both."""
    warp = build_warp(real_rig, SPEC)

    def run(points: np.ndarray, radius_px: int = 1, max_m: float = np.inf):
        at, placed = placed_points(see(points.astype(np.float32), real_rig), warp, real_rig, SPEC, np.eye(3))
        return at, placed, *densified(at, placed, warp, real_rig, radius_px, max_m)

    return run


def ground(number: int = 60_000) -> np.ndarray:
    """Points of a plane that is inclined by 3 degrees, 1.9 m below the LiDAR; axes right, down, forward."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-25, 25, (2, number))
    return np.stack([x, 1.9 + np.tan(np.deg2rad(3)) * z, z], axis=-1)


def off_ground(points: np.ndarray) -> np.ndarray:
    return np.abs(points[:, 1] - 1.9 - np.tan(np.deg2rad(3)) * points[:, 2]) * np.cos(np.deg2rad(3))


def test_added_points_lie_on_the_plane_of_the_measured(dense):
    at, points, all_at, all_points = dense(ground())
    added = len(all_at) - len(at)
    assert added > 1000
    assert len(np.unique(all_at)) == len(all_at)
    np.testing.assert_array_equal(all_at[: len(at)], at)
    np.testing.assert_array_equal(all_points[: len(at)], points)
    assert off_ground(all_points).max() < 1e-4


def test_nothing_is_added_where_points_do_not_agree(dense):
    """The same pixels, each at a distance of its own: no plane explains more than a few of them by chance."""
    rng = np.random.default_rng(1)
    points = ground() * rng.uniform(0.3, 1.0, (60_000, 1))
    at, _, all_at, _ = dense(points)
    assert len(all_at) - len(at) < 0.02 * len(at)


def test_nothing_is_added_beyond_the_limit_of_depth(dense, real_rig):
    """The range of an added point is that from the camera that shows it."""
    winner = build_warp(real_rig, SPEC).winner.reshape(-1)

    def ranges(max_m: float) -> np.ndarray:
        at, _, all_at, all_points = dense(ground(), max_m=max_m)
        cameras = real_rig.agent_from_camera[winner[all_at[len(at) :]], :3, 3]
        return np.linalg.norm(all_points[len(at) :] - cameras, axis=-1)

    every = ranges(np.inf)
    limit = float(np.median(every))
    np.testing.assert_allclose(ranges(limit), every[every <= limit], rtol=1e-4)


def test_nothing_is_added_across_an_edge_of_depth(dense):
    """A wall 8 m ahead of another at 20 m: every added point lies on one of the two."""
    rng = np.random.default_rng(2)
    near = np.stack([rng.uniform(-2, 2, 300), rng.uniform(-1, 1, 300), np.full(300, 8.0)], axis=-1)
    far = np.stack([rng.uniform(-20, 20, 3000), rng.uniform(-5, 1.5, 3000), np.full(3000, 20.0)], axis=-1)
    far = far[(np.abs(far[:, 0]) > 5.1) | (far[:, 1] > 2.6) | (far[:, 1] < -2.6)]  # hidden by the near one
    at, _, _, all_points = dense(np.concatenate([near, far]))
    added = all_points[len(at) :]
    assert len(added) > 300
    gap = np.minimum(np.abs(added[:, 2] - 8), np.abs(added[:, 2] - 20))
    assert (gap < 0.01).mean() > 0.995


def test_too_few_points_and_points_far_apart_add_nothing(dense):
    at, _, all_at, _ = dense(ground(3))
    assert len(all_at) == len(at)
    at, _, all_at, _ = dense(np.empty((0, 3)))
    assert len(all_at) == len(at) == 0


@pytest.mark.skipif(not REAL_FRAME.is_dir(), reason="needs recorded sweeps beside the checkout")
@pytest.mark.parametrize("car", ["1", "2", "3", "4"])
def test_points_of_a_recorded_sweep_are_foretold_by_their_neighbors(car):
    """A tenth of the points is left out; where their pixels are filled, the ranges are nearly theirs."""
    camera = PanoramaCamera(252, 1008, np.pi / 2)
    rig, spec = read_agent(REAL_FRAME / f"{car}.yaml").rig, PanoramaSpec(camera)
    warp, sweep = build_warp(rig, spec), read_sweep(REAL_FRAME / f"{car}_lidar.pcd")
    seen = cull_hidden(see(drop_own_body(sweep), rig), rig.intrinsics[:, 0, 0], sample_spacing(sweep))
    at, points = placed_points(seen, warp, rig, spec, np.eye(3))
    left_out = np.random.default_rng(0).random(len(at)) < 0.1
    all_at, all_points = densified(at[~left_out], points[~left_out], warp, rig, 1)
    assert len(all_at) > 1.35 * (~left_out).sum()
    _, ours, theirs = np.intersect1d(all_at, at[left_out], return_indices=True)
    ranges = np.linalg.norm(all_points[ours], axis=-1), np.linalg.norm(points[left_out][theirs], axis=-1)
    error = np.abs(ranges[0] / ranges[1] - 1)
    assert len(ours) > 0.6 * left_out.sum()
    assert np.median(error) < 0.007
    assert np.quantile(error, 0.9) < 0.02
