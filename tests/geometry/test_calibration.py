import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopmap.geometry.calibration import MAX_PIXELS, fit_panorama, fit_pinhole
from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays

NOISE = np.deg2rad(0.5)


def pinhole_rays(matrices: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([camera_rays(PinholeCamera(matrix, height, width)) for matrix in matrices])


def disturbed(rays: np.ndarray, rng: np.random.Generator, noise: float = 0.0, outliers: float = 0.0) -> np.ndarray:
    """Normal noise of so many radians along each of two axes across the ray; a share is replaced by any direction."""
    across = rng.standard_normal(rays.shape) * noise
    across -= rays * (across * rays).sum(-1, keepdims=True)
    rays = rays + across
    wrong = rng.random(rays.shape[:-1]) < outliers
    rays[wrong] = rng.standard_normal((wrong.sum(), 3))
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


@st.composite
def intrinsics(draw, height: int, width: int) -> np.ndarray:
    """Fields of view from 25 to 120 degrees, pixels up to 1.5 times as high as wide, principal point off center."""
    fx = draw(st.floats(0.3, 2.2)) * width
    fy = fx * draw(st.floats(0.67, 1.5))
    cx, cy = draw(st.floats(0.3, 0.7)) * width, draw(st.floats(0.3, 0.7)) * height
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


panoramas = st.builds(
    lambda v_fov, center, projection: PanoramaCamera(60, 240, np.deg2rad(v_fov), np.deg2rad(center), projection),
    st.floats(30, 110),
    st.floats(-15, 15),
    st.sampled_from(["equirect", "cylinder"]),
)


def turned(rays: np.ndarray, yaw: float) -> np.ndarray:
    """Rays of a panorama whose middle column looks towards azimuth ``yaw``."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return rays @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T


@given(st.lists(intrinsics(60, 84), min_size=1, max_size=3), st.floats(0.1, 100))
def test_intrinsics_from_exact_rays(matrices, length):
    calibration = fit_pinhole(length * pinhole_rays(np.stack(matrices), 60, 84))
    assert np.abs(calibration.intrinsics - matrices).max() < 1e-6
    assert calibration.residual.max() < 1e-9


def test_intrinsics_from_float32_rays_of_the_largest_images():
    matrix = np.array([[500.0, 0, 250], [0, 480, 170], [0, 0, 1]])
    rays = pinhole_rays(matrix[None], 392, 518).astype(np.float32)
    assert np.abs(fit_pinhole(rays).intrinsics - matrix).max() < 1e-3


@given(intrinsics(60, 84), st.integers(0, 2**32 - 1))
def test_outliers_do_not_move_exact_intrinsics(matrix, seed):
    rays = disturbed(pinhole_rays(matrix[None], 60, 84), np.random.default_rng(seed), outliers=0.1)
    assert np.abs(fit_pinhole(rays).intrinsics - matrix).max() < 1e-3


@pytest.mark.parametrize("outliers", [0.0, 0.1])
@settings(max_examples=15)
@given(intrinsics(60, 84), st.integers(0, 2**32 - 1))
def test_noise_leaves_the_statistical_error(outliers, matrix, seed):
    """Compared as angles: how far the recovered camera's rays are off, against ``noise * sqrt(4 / pixels)``.

    Four unknowns share the information of all pixels; six times the expected error is never seen by chance.
    """
    exact = pinhole_rays(matrix[None], 60, 84)
    calibration = fit_pinhole(disturbed(exact, np.random.default_rng(seed), NOISE, outliers))
    off = np.linalg.norm(pinhole_rays(calibration.intrinsics, 60, 84) - exact, axis=-1)
    rms = np.sqrt(np.square(off).mean())
    # Bias of noisy directions in the image plane, of second order: NOISE^2 tan(angle off axis).
    slant = np.arccos(exact[..., 2]).max()
    assert rms < 6 * NOISE * np.sqrt(4 / (60 * 84)) + 2 * NOISE**2 * np.tan(slant)
    assert calibration.residual[0] == pytest.approx(np.sqrt(2) * NOISE, rel=0.15)


@given(panoramas, st.floats(-np.pi, np.pi))
def test_panorama_from_exact_rays(camera, yaw):
    calibration = fit_panorama(turned(camera_rays(camera), yaw)[None])
    assert calibration.projection == (camera.projection,)
    assert abs(calibration.v_fov[0] - camera.v_fov) < 1e-6
    assert abs(calibration.elevation_center[0] - camera.elevation_center) < 1e-6
    assert abs(np.angle(np.exp(1j * (calibration.yaw[0] - yaw)))) < 1e-6
    assert calibration.residual[0] < 1e-6


@pytest.mark.parametrize("outliers", [0.0, 0.1])
@settings(max_examples=15)
@given(panoramas, st.floats(-3, 3), st.integers(0, 2**32 - 1))
def test_panorama_from_noisy_rays(outliers, camera, yaw, seed):
    """The error of a line's slope is ``sqrt(12 / pixels)`` times the noise, of its middle ``sqrt(1 / pixels)`` times.

    A cylinder's steep rows and a high panorama's azimuths count less, at most by the cosine of their elevation.
    """
    rays = disturbed(turned(camera_rays(camera), yaw), np.random.default_rng(seed), NOISE, outliers)
    calibration = fit_panorama(rays[None])
    assert calibration.projection == (camera.projection,)
    steepest = np.cos(abs(camera.elevation_center) + camera.v_fov / 2)
    unit = 6 * NOISE / np.sqrt(60 * 240) / steepest
    assert abs(calibration.v_fov[0] - camera.v_fov) < unit * np.sqrt(12)
    assert abs(calibration.elevation_center[0] - camera.elevation_center) < unit * np.sqrt(12)
    assert abs(calibration.yaw[0] - yaw) < unit


def test_default_panorama_with_half_a_degree_of_noise_is_known_to_a_hundredth():
    camera = PanoramaCamera(252, 1008, np.deg2rad(90))
    calibration = fit_panorama(disturbed(camera_rays(camera), np.random.default_rng(0), NOISE, 0.1)[None])
    off = [calibration.v_fov[0] - camera.v_fov, calibration.elevation_center[0], calibration.yaw[0]]
    assert np.rad2deg(np.abs(off)).max() < 6 * 0.5 * np.sqrt(12 / MAX_PIXELS) < 0.05


def test_only_usable_pixels_count():
    matrix = np.array([[70.0, 0, 40], [0, 90, 30], [0, 0, 1]])
    rays = pinhole_rays(matrix[None], 60, 84)
    usable = np.zeros(rays.shape[:-1], dtype=bool)
    usable[:, 20:40] = True
    other = np.array([[60.0, 0, 42], [0, 60, 30], [0, 0, 1]])
    rays[~usable] = pinhole_rays(other[None], 60, 84)[~usable]
    rays[0, 0, 0] = np.nan
    assert np.abs(fit_pinhole(rays, usable).intrinsics - matrix).max() < 1e-6
    assert np.abs(fit_pinhole(rays).intrinsics - matrix).max() > 1
    rays[~usable] = [0.6, 0.0, 0.8]  # most pixels, and all agree with one another
    assert np.abs(fit_pinhole(rays, usable).intrinsics - matrix).max() < 1e-6
    assert np.isnan(fit_pinhole(rays).intrinsics).all()


directions = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)).map(np.array)
PANORAMA = PanoramaCamera(60, 240, np.deg2rad(90))
PINHOLE = np.array([[[70.0, 0, 40], [0, 90, 30], [0, 0, 1]]])


def is_no_camera(calibration) -> bool:
    fields = [value for value in vars(calibration).values() if isinstance(value, np.ndarray)]
    return all(np.isnan(value).all() for value in fields)


@settings(max_examples=12)
@given(directions, st.sampled_from([np.float32, np.float64]), st.floats(0, 0.4), st.integers(0, 2**32 - 1))
def test_rays_that_agree_come_from_no_camera(direction, dtype, outliers, seed):
    """Their field of view is zero up to rounding, which differs between processors."""
    direction = (direction / np.linalg.norm(direction)).astype(dtype)
    rays = pinhole_rays(PINHOLE, 60, 84).astype(dtype)
    rays[np.random.default_rng(seed).random(rays.shape[:-1]) >= outliers] = direction
    assert is_no_camera(fit_pinhole(rays))
    assert is_no_camera(fit_panorama(np.broadcast_to(direction, (1, 60, 240, 3))))


@settings(max_examples=12)
@given(st.integers(0, 59), st.integers(0, 83), st.integers(0, 2**32 - 1))
def test_pixels_of_one_row_or_column_or_too_few_determine_no_camera(row, column, seed):
    pinhole, panorama = pinhole_rays(PINHOLE, 60, 84), camera_rays(PANORAMA)[None]
    one_row, one_column, few = (np.zeros((1, 60, 240), dtype=bool) for _ in range(3))
    one_row[:, row], one_column[:, :, column] = True, True
    few.reshape(-1)[np.random.default_rng(seed).choice(few.size, 15, replace=False)] = True
    for usable in (one_row, one_column, few):
        assert is_no_camera(fit_pinhole(pinhole, usable[..., :84]))
    for usable in (one_row, few):
        assert is_no_camera(fit_panorama(panorama, usable))
    # one column of a panorama does: it holds all elevations, and an azimuth
    assert fit_panorama(panorama, one_column).v_fov == pytest.approx(PANORAMA.v_fov, abs=1e-9)


def test_azimuths_that_have_nothing_to_do_with_columns_have_no_yaw():
    backwards = camera_rays(PANORAMA)[None, :, ::-1]  # azimuth falls from left to right: votes for all yaws alike
    assert is_no_camera(fit_panorama(backwards))


def test_rays_that_are_far_from_any_camera_have_none():
    rng = np.random.default_rng(0)
    pinhole, panorama = pinhole_rays(PINHOLE, 60, 84), camera_rays(PANORAMA)[None]
    halved = np.arctan2(panorama[..., 0], panorama[..., 2]) / 2  # azimuths turn half as fast as columns
    flat = np.hypot(panorama[..., 0], panorama[..., 2])
    slow = np.stack([np.sin(halved) * flat, panorama[..., 1], np.cos(halved) * flat], axis=-1)
    for fit, far in (
        (fit_panorama, slow),
        (fit_panorama, disturbed(panorama, rng, 2)),
        (fit_pinhole, disturbed(pinhole, rng, 2)),
    ):
        assert is_no_camera(fit(far))
    for fit, noisy in ((fit_panorama, disturbed(panorama, rng, 0.15)), (fit_pinhole, disturbed(pinhole, rng, 0.15))):
        assert np.rad2deg(fit(noisy).residual) == pytest.approx(12, abs=1.5)


@given(st.sampled_from([np.nan, np.inf, 0.0]))
def test_views_without_rays_have_no_camera_and_leave_the_others_alone(value):
    for fit, exact in ((fit_pinhole, pinhole_rays(PINHOLE, 60, 84)), (fit_panorama, camera_rays(PANORAMA)[None])):
        both = fit(np.concatenate([np.full_like(exact, value), exact]))
        assert np.isnan(both.residual[0])
        assert both.residual[1] < 1e-9


def test_what_is_no_such_camera_gets_nan():
    panorama = camera_rays(PanoramaCamera(28, 112, np.deg2rad(90)))
    pinhole = pinhole_rays(np.array([[[50.0, 0, 56], [0, 50, 14], [0, 0, 1]]]), 28, 112)[0]
    mirrored = pinhole * [-1, 1, 1]
    nothing = np.zeros_like(pinhole)
    matrices = fit_pinhole(np.stack([-pinhole, mirrored, nothing, pinhole])).intrinsics
    assert np.isnan(matrices[:3]).all((-2, -1)).all()
    assert np.isfinite(matrices[3]).all()
    calibration = fit_panorama(np.stack([panorama * [1, -1, 1], nothing, panorama]))
    assert np.isnan(calibration.v_fov[:2]).all()
    assert np.isnan(calibration.residual[:2]).all()
    assert np.rad2deg(calibration.v_fov[2]) == pytest.approx(90)
    assert calibration.residual[2] < 1e-9
    off_by_degrees = fit_panorama(pinhole[None]).residual[0]
    assert not off_by_degrees < np.deg2rad(5)  # perspective rays are no panorama


def test_unknown_projection():
    with pytest.raises(ValueError, match="unknown projection 'fisheye'"):
        fit_panorama(np.zeros((1, 4, 8, 3)), projection="fisheye")
