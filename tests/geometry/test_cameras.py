import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays, pixel_centers

PINHOLE = PinholeCamera(np.array([[335.64, 0, 400], [0, 335.64, 300], [0, 0, 1]]), 600, 800)
panoramas = st.builds(
    PanoramaCamera,
    height=st.sampled_from([84, 252]),
    width=st.sampled_from([336, 1008]),
    v_fov=st.floats(0.3, 2.0),
    elevation_center=st.floats(-0.3, 0.3),
    projection=st.sampled_from(["equirect", "cylinder"]),
)
fractions = st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999))
ranges = st.floats(0.5, 200.0)


def angle(a, b):
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1))


@given(st.one_of(st.just(PINHOLE), panoramas), fractions, ranges)
def test_project_inverts_unproject(camera, fraction, distance):
    pixel = np.array(fraction) * (camera.width, camera.height)
    ray = camera.unproject(pixel)
    assert np.linalg.norm(ray) == pytest.approx(1.0)
    projected, visible = camera.project(ray * distance)
    assert visible
    np.testing.assert_allclose(projected, pixel, atol=1e-3)
    assert angle(camera.unproject(projected), ray) < 1e-6


def test_panorama_columns_and_rows_mean_what_the_conventions_say():
    camera = PanoramaCamera(252, 1008, np.pi / 2)
    looking = {"forward": (504, 126), "right": (756, 126), "left": (252, 126), "top row": (504, 0)}
    rays = {name: camera.unproject(np.array(pixel, float)) for name, pixel in looking.items()}
    np.testing.assert_allclose(rays["forward"], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rays["right"], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rays["left"], [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(rays["top row"], [0, -np.sqrt(0.5), np.sqrt(0.5)], atol=1e-12)  # 45 degrees up


def test_cylinder_rows_are_linear_in_the_tangent():
    camera = PanoramaCamera(100, 400, np.pi / 2, projection="cylinder")
    rays = camera_rays(camera)[:, 200]
    slopes = -rays[:, 1] / np.hypot(rays[:, 0], rays[:, 2])
    np.testing.assert_allclose(np.diff(slopes), -2 / 100, atol=1e-12)


def test_points_behind_a_pinhole_camera_are_not_visible():
    _, visible = PINHOLE.project(np.array([[0, 0, 5.0], [0, 0, -5.0], [0, 0, 0.0], [50.0, 0, 1.0]]))
    assert visible.tolist() == [True, False, False, False]


def test_pixel_centers_lie_at_one_half():
    centers = pixel_centers(2, 3)
    assert centers[0, 0].tolist() == [0.5, 0.5]
    assert centers[1, 2].tolist() == [2.5, 1.5]
