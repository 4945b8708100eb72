from dataclasses import replace

import numpy as np
import pytest

from coopmap.data.augmentation import rotated, tilt_rotation
from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays
from coopmap.geometry.central import central_geometry
from coopmap.geometry.panorama import PanoramaSpec, build_warp, look_up, surface_range
from coopmap.geometry.poses import rotation_about_y
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import content_geometry
from coopmap.geometry.warp_cache import MAX_WARPS, WarpCache, rounded_rig

CAMERA = PanoramaCamera(252, 1008, np.pi / 2)
SMALL = PanoramaCamera(84, 336, np.pi / 2)
NOMINAL = camera_rays(CAMERA).astype(np.float32)
WALL_M = 12.0


def box_ranges(origins: np.ndarray, rays: np.ndarray, ground_m: float) -> np.ndarray:
    """Range to the inside of a world made of the ground and four walls 12 m from the agent."""
    with np.errstate(divide="ignore"):
        to_ground = np.where(rays[..., 1] > 0, (ground_m - origins[..., 1]) / rays[..., 1], np.inf)
        to_walls = [
            np.where(rays[..., axis] * side > 0, (side * WALL_M - origins[..., axis]) / rays[..., axis], np.inf)
            for axis in (0, 2)
            for side in (-1, 1)
        ]
    return np.minimum.reduce([to_ground, *to_walls])


def box_depths(rig: Rig) -> np.ndarray:
    """What the rig's depth cameras see of that world."""
    depths = []
    for intrinsics, pose in zip(rig.intrinsics, rig.agent_from_camera, strict=True):
        rays = camera_rays(PinholeCamera(intrinsics, *rig.image_size)) @ pose[:3, :3].T
        depths.append(box_ranges(pose[:3, 3], rays, rig.ground_height_m))
    return np.stack(depths).astype(np.float32)


def distance_to_box(points: np.ndarray, ground_m: float) -> np.ndarray:
    gaps = [np.abs(points[..., 1] - ground_m), *(np.abs(np.abs(points[..., axis]) - WALL_M) for axis in (0, 2))]
    return np.minimum.reduce(gaps)


@pytest.mark.parametrize(
    ("surface", "radius_m", "legacy_crop", "coverage", "tolerance"),
    [
        ("infinite", 30, False, 0.858, 0.005),
        ("sphere", 20, False, 0.783, 0.005),
        ("bowl", 50, False, 0.743, 0.005),
        ("bowl", 30, False, 0.730, 0.005),
        ("bowl", 20, False, 0.715, 0.005),
        ("infinite", 30, True, 0.331, 0.003),
    ],
)
def test_coverage_with_the_real_rig(real_rig, surface, radius_m, legacy_crop, coverage, tolerance):
    spec = PanoramaSpec(CAMERA, surface, radius_m, legacy_crop=legacy_crop)
    assert build_warp(real_rig, spec).covered.mean() == pytest.approx(coverage, abs=tolerance)


def test_the_winner_is_the_camera_closest_to_its_axis(real_rig):
    warp = build_warp(real_rig, PanoramaSpec(CAMERA, "infinite"))
    horizon = warp.winner[126]
    front, left, rear, right = (horizon[column] for column in (504, 252 - 28, 0, 756 + 28))
    assert (front, left, rear, right) == (0, 1, 2, 3)
    rays = camera_rays(CAMERA)
    axes = real_rig.agent_from_camera[:, :3, 2]
    cosines = np.einsum("hwi,ki->hwk", rays, axes)
    winner_cosine = np.take_along_axis(cosines, np.maximum(warp.winner, 0)[..., None].astype(int), -1)[..., 0]
    whole_image = [PinholeCamera(k, *real_rig.image_size) for k in real_rig.intrinsics]
    for slot, camera in enumerate(whole_image):
        _, visible = camera.project(rays @ real_rig.agent_from_camera[slot, :3, :3])
        assert (warp.covered | ~visible).all()
        assert (winner_cosine[visible] >= cosines[..., slot][visible] - 1e-12).all()


def test_bowl_is_the_ground_closed_by_a_sphere():
    rays = np.array([[0, 1.0, 0], [0, 0.6, 0.8], [0, 0.001, 1.0], [0, -0.6, 0.8]])
    np.testing.assert_allclose(surface_range(rays, "bowl", 30.0, 1.9), [1.9, 1.9 / 0.6, 30.0, 30.0])
    with pytest.raises(ValueError, match="above the ground"):
        surface_range(rays, "bowl", 30.0, 0.0)


@pytest.mark.parametrize("surface", ["bowl", "infinite"])
def test_content_points_lie_on_the_surfaces(real_rig, surface):
    warp = build_warp(real_rig, PanoramaSpec(CAMERA, surface))
    rays, ranges = content_geometry(warp, real_rig, box_depths(real_rig), NOMINAL)
    known = ranges > 0
    assert (known == warp.covered).all()
    points = rays * ranges[..., None]
    assert distance_to_box(points[known], real_rig.ground_height_m).max() < 1e-4
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)


def test_the_bowl_keeps_content_near_the_nominal_rays_and_the_infinite_surface_does_not(real_rig):
    nominal, depths = camera_rays(CAMERA), box_depths(real_rig)
    errors = {}
    for surface in ("bowl", "infinite"):
        warp = build_warp(real_rig, PanoramaSpec(CAMERA, surface, radius_m=WALL_M))
        rays, ranges = content_geometry(warp, real_rig, depths, NOMINAL)
        cosine = (rays * nominal).sum(-1)[ranges > 0]
        errors[surface] = np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).mean()
    assert errors["bowl"] < 1.0
    assert errors["infinite"] > 5 * errors["bowl"]


def test_central_depth_is_what_a_camera_at_the_center_sees(real_rig):
    ranges = central_geometry(CAMERA, real_rig, box_depths(real_rig), dense=True)
    truth = box_ranges(np.zeros(3), camera_rays(CAMERA), real_rig.ground_height_m)
    known = ranges > 0
    assert known.mean() > 0.7
    error = np.abs(ranges - truth)[known]
    assert np.median(error) < 1e-3
    # where two surfaces meet, a splat from the neighbor can win
    assert np.quantile(error, 0.99) < 0.05


def test_sparse_central_depth_keeps_each_points_own_range(real_rig):
    depths = np.zeros((4, *real_rig.image_size), np.float32)
    depths[0, 300, 400] = 20.0  # straight ahead of the front camera
    ranges = central_geometry(CAMERA, real_rig, depths, dense=False)
    row, column = np.argwhere(ranges > 0)[0]
    assert (ranges > 0).sum() == 1
    point = real_rig.agent_from_camera[0] @ np.array([0.5 * 20 / 335.64, 0.5 * 20 / 335.64, 20, 1])
    assert ranges[row, column] == pytest.approx(np.linalg.norm(point[:3]), abs=0.001)
    assert column in (503, 504)


def test_rolling_the_panorama_equals_turning_the_car(real_rig):
    shift = 100
    turned = replace(
        real_rig, agent_from_camera=rotation_about_y(-2 * np.pi * shift / CAMERA.width) @ real_rig.agent_from_camera
    )
    spec = PanoramaSpec(CAMERA)
    expected = np.roll(build_warp(real_rig, spec).winner, -shift, axis=1)
    actual = build_warp(turned, spec).winner
    assert (expected == actual).mean() > 0.9999  # ties of rounding at borders
    images = np.random.default_rng(0).integers(0, 255, (4, 600, 800, 3), np.uint8)
    before = PreparedWarp(build_warp(real_rig, spec), real_rig, spec).stitch(images)
    after = PreparedWarp(build_warp(turned, spec), turned, spec).stitch(images)
    close = np.abs(np.roll(before, -shift, axis=1).astype(int) - after).max(-1) <= 2
    assert close.mean() > 0.999


def test_color_comes_from_where_geometry_says(real_rig):
    """Each camera shows its own pixel coordinates as colors, so a panorama pixel tells where it was sampled."""
    height, width = real_rig.image_size
    v, u = np.mgrid[:height, :width]
    coded = np.stack([u * 255 / width, v * 255 / height, 0 * u], axis=-1)
    images = np.repeat(coded[None], 4, axis=0).astype(np.uint8)
    images[..., 2] = 60 * np.arange(4)[:, None, None]
    spec = PanoramaSpec(CAMERA, feather=0.0)
    warp = build_warp(real_rig, spec)
    panorama = PreparedWarp(warp, real_rig, spec).stitch(images)
    seen = warp.covered
    assert (np.abs(panorama[seen][:, 2].astype(int) - 60 * warp.winner[seen].astype(int)) <= 1).all()
    np.testing.assert_allclose(panorama[seen][:, 0], warp.pixel[seen][:, 0] * 255 / width, atol=2)
    np.testing.assert_allclose(panorama[seen][:, 1], warp.pixel[seen][:, 1] * 255 / height, atol=2)
    assert (panorama[~seen] == 0).all()


def test_feathering_blends_where_cameras_overlap(real_rig):
    """The rear camera overlaps with both sides by 20 degrees; the front camera only touches them."""
    images = np.stack([np.full((600, 800, 3), level, np.uint8) for level in (0, 80, 160, 240)])
    for degrees in (0.0, 6.0):
        spec = PanoramaSpec(CAMERA, "infinite", feather=np.deg2rad(degrees))
        warp = build_warp(real_rig, spec)
        horizon = PreparedWarp(warp, real_rig, spec).stitch(images)[126, :, 0].astype(int)
        behind = np.roll(horizon, 504)[252:756]
        step = np.abs(np.diff(behind)).max()
        assert step < 10 if degrees else step == 80
        assert len(warp.blend_at) < 0.1 * warp.winner.size


def test_images_of_another_size_are_refused(real_rig):
    spec = PanoramaSpec(SMALL)
    prepared = PreparedWarp(build_warp(real_rig, spec), real_rig, spec)
    with pytest.raises(ValueError, match=r"expected images of \(600, 800\), got \(4, 300"):
        prepared.stitch(np.zeros((4, 300, 400, 3), np.uint8))


def noisy(rig: Rig, rng: np.random.Generator) -> Rig:
    noise = rng.uniform(-1e-5, 1e-5, (4, 4, 4))
    noise[:, 3] = 0
    return replace(rig, agent_from_camera=rig.agent_from_camera + noise)


def test_noise_in_calibration_does_not_defeat_the_cache(real_rig, tmp_path):
    cache = WarpCache(PanoramaSpec(SMALL), tmp_path)
    rng = np.random.default_rng(0)
    warps = [cache.get(noisy(real_rig, rng)) for _ in range(50)]
    assert len(cache) == 1
    assert all(warp is warps[0] for warp in warps)
    assert len(list(tmp_path.glob("warp_*.npz"))) == 1
    other = replace(real_rig, agent_from_camera=real_rig.agent_from_camera @ rotation_about_y(0.01))
    cache.get(other)
    assert len(cache) == 2


def test_the_cache_on_disk_gives_the_same_warp_and_survives_damage(real_rig, tmp_path):
    spec = PanoramaSpec(SMALL)
    fresh = WarpCache(spec, tmp_path).get(real_rig)
    stored = WarpCache(spec, tmp_path).get(real_rig)
    for name in fresh.warp._fields:
        np.testing.assert_array_equal(getattr(fresh.warp, name), getattr(stored.warp, name))
    path = next(tmp_path.glob("warp_*.npz"))
    path.write_bytes(path.read_bytes()[:1000])
    repaired = WarpCache(spec, tmp_path).get(real_rig)
    np.testing.assert_array_equal(repaired.warp.winner, fresh.warp.winner)
    assert WarpCache(replace(spec, surface="sphere"), tmp_path).get(real_rig).covered.sum() != fresh.covered.sum()


def test_the_rounded_rig_stays_rigid_and_close(real_rig):
    rig = rounded_rig(real_rig)
    rotation = rig.agent_from_camera[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(rig.agent_from_camera, real_rig.agent_from_camera, atol=6e-4)


@pytest.mark.parametrize("size", [(252, 1008), (28, 112)])
@pytest.mark.parametrize("surface", ["bowl", "infinite"])
@pytest.mark.parametrize("crop", [False, True])
def test_the_winner_is_the_camera_with_the_smallest_angle_of_all(real_rig, size, surface, crop):
    """Cameras compete on a stretch of columns only: none is left out, in tilted and turned panoramas either."""
    spec = PanoramaSpec(PanoramaCamera(*size, np.pi / 2), surface, legacy_crop=crop)
    for pitch, roll, yaw in ((0, 0, 0), (0.3, -0.2, 0), (-0.1, 0.4, 2.0)):
        rays = rotated(camera_rays(spec.camera), tilt_rotation(pitch, roll) @ rotation_about_y(yaw))
        warp, (pixels, angles) = build_warp(real_rig, spec, rays), look_up(real_rig, rays, spec)
        expected = np.where(np.isfinite(angles.min(axis=0)), angles.argmin(axis=0), -1)
        np.testing.assert_array_equal(warp.winner, expected)
        row, column = np.nonzero(warp.covered)
        shown = pixels[expected[row, column], row, column]
        np.testing.assert_allclose(warp.pixel[row, column], shown, atol=1e-4)
        ordered = np.sort(angles, axis=0)
        with np.errstate(invalid="ignore"):
            blended = np.flatnonzero(ordered[1] - ordered[0] < spec.feather)
        np.testing.assert_array_equal(warp.blend_at, blended)
        second = np.argsort(angles.reshape(4, -1)[:, blended], axis=0)[1]
        np.testing.assert_array_equal(warp.blend_camera, second)
        other = pixels.reshape(4, -1, 2)[second, blended]
        np.testing.assert_allclose(warp.blend_pixel, other, atol=1e-4)
        lead = np.diff(ordered.reshape(4, -1)[:2, blended], axis=0)[0]
        np.testing.assert_allclose(warp.blend_weight, 0.5 * (1 - lead / spec.feather), atol=1e-5)


def test_warps_in_memory_are_bounded_and_those_in_use_stay(real_rig):
    cache = WarpCache(PanoramaSpec(SMALL))
    first = cache.get(real_rig)
    for number in range(1, 2 * MAX_WARPS):
        cache.get(replace(real_rig, ground_height_m=real_rig.ground_height_m + 0.1 * number))
        assert cache.get(real_rig) is first
    assert len(cache) == MAX_WARPS
