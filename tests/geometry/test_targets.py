"""Measured points in the panorama pixels that show them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopmap.data.augmentation import rotated, tilt_rotation
from coopmap.data.opv2v import read_agent
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.panorama import PanoramaSpec, build_warp, surface_range
from coopmap.geometry.poses import rotation_about_y
from coopmap.geometry.targets import SeenPoints, nearest_per_pixel, panorama_pixels, placed_points, scattered

CAMERA = PanoramaCamera(84, 336, np.pi / 2)
NOMINAL = camera_rays(CAMERA).astype(np.float32)
REAL_FRAME = Path(__file__).parents[3] / "shared" / "real" / "carla_five"


def on_surface(rig, spec, warp, chosen) -> SeenPoints:
    """Points where the nominal rays of covered panorama pixels meet the proxy surface, seen by the winners."""
    rays = camera_rays(spec.camera).reshape(-1, 3)[chosen]
    reach = surface_range(rays, spec.surface, spec.radius_m, rig.ground_height_m)
    points = (rays * np.where(np.isinf(reach), 1e6, reach)[:, None]).astype(np.float32)
    winner = warp.winner.reshape(-1)[chosen]
    ranges = np.linalg.norm(points - rig.agent_from_camera[winner, :3, 3], axis=-1).astype(np.float32)
    return SeenPoints(points, winner, warp.source.reshape(-1)[chosen], ranges, rig.image_size, 4)


@pytest.mark.parametrize("surface", ["bowl", "sphere", "infinite"])
def test_scattering_is_the_inverse_of_the_warp(real_rig, surface):
    """What lies on the proxy surface is shown in its own direction: each pixel's point comes back to that pixel."""
    spec = PanoramaSpec(CAMERA, surface)
    warp = build_warp(real_rig, spec)
    chosen = np.flatnonzero(warp.covered)
    pixel, shows = panorama_pixels(on_surface(real_rig, spec, warp, chosen), warp, real_rig, spec, np.eye(3))
    assert shows.all()
    np.testing.assert_array_equal(pixel, chosen)


@pytest.mark.parametrize("shift", [0, 1, 335])
@pytest.mark.parametrize("tilted", [False, True])
def test_points_keep_their_place_in_tilted_and_rolled_views(real_rig, shift, tilted):
    spec = PanoramaSpec(CAMERA)
    tilt = tilt_rotation(np.deg2rad(4), np.deg2rad(-3)) if tilted else np.eye(4)
    warp = build_warp(real_rig, spec, rotated(camera_rays(CAMERA), tilt))
    turn = (tilt @ rotation_about_y(2 * np.pi * shift / CAMERA.width))[:3, :3]
    points = np.random.default_rng(0).uniform((-20, -3, -20), (20, 1.5, 20), (20_000, 3)).astype(np.float32)
    seen = see(points, real_rig)
    at, shown = placed_points(seen, warp, real_rig, spec, tilt[:3, :3].T)
    rays, ranges = scattered(at, shown, turn.T, NOMINAL, shift)
    known = ranges > 0
    assert 0.1 < known.mean() < 0.7
    assert not (known & ~np.roll(warp.covered, -shift, axis=1)).any()
    found = (rays * ranges[..., None])[known] @ turn.T
    gaps = np.linalg.norm(found[:, None] - points[None, :: len(points)], axis=-1)
    assert gaps.shape[0] == known.sum()
    order = np.lexsort(np.round(found, 3).T)
    given_points = {tuple(row) for row in np.round(points, 2)}
    assert all(tuple(row) in given_points or near(row, points) for row in np.round(found[order[::200]], 2))
    np.testing.assert_array_equal(rays[~known], NOMINAL[~known])
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-5)


def near(row, points) -> bool:
    return np.abs(points - row).max(axis=1).min() < 0.011


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=30))
def test_the_nearest_of_each_pixel_is_kept_once(entries):
    pixel = np.array([entry[0] for entry in entries], int)
    distance = np.array([entry[1] for entry in entries], np.float32)
    kept = nearest_per_pixel(pixel, distance, 6)
    assert sorted(pixel[kept]) == sorted(set(pixel))
    assert all(distance[index] == distance[pixel == pixel[index]].min() for index in kept)


def test_a_camera_that_lost_the_pixel_shows_nothing(real_rig):
    spec = PanoramaSpec(CAMERA)
    warp = build_warp(real_rig, spec)
    seen = on_surface(real_rig, spec, warp, np.flatnonzero(warp.covered))
    others = replace(seen, camera=(seen.camera + 2) % 4)
    _, shows = panorama_pixels(others, warp, real_rig, spec, np.eye(3))
    assert shows.mean() < 0.01


@pytest.mark.skipif(not REAL_FRAME.is_dir(), reason="needs recorded sweeps beside the checkout")
@pytest.mark.parametrize("car", ["1", "2", "3", "4"])
def test_every_point_of_a_recorded_sweep_counts(car):
    camera = PanoramaCamera(252, 1008, np.pi / 2)
    rig, spec = read_agent(REAL_FRAME / f"{car}.yaml").rig, PanoramaSpec(camera)
    warp, sweep = build_warp(rig, spec), read_sweep(REAL_FRAME / f"{car}_lidar.pcd")
    seen = cull_hidden(see(drop_own_body(sweep), rig), rig.intrinsics[:, 0, 0], sample_spacing(sweep))
    _, shows = panorama_pixels(seen, warp, rig, spec, np.eye(3))
    at, points = placed_points(seen, warp, rig, spec, np.eye(3))
    _, ranges = scattered(at, points, np.eye(3), camera_rays(camera).astype(np.float32))
    assert (ranges > 0).mean() > 0.14
    assert (ranges > 0).sum() > 0.95 * shows.sum()
