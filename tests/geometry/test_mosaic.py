"""Camera images side by side: where pixels lie, and along which lines they look."""

import cv2
import numpy as np
import pytest

from coopmap.data.opv2v.lidar import see
from coopmap.geometry.mosaic import Mosaic, MosaicSpec, draw_tiles, joined
from coopmap.geometry.rig import SLOTS, SLOTS_BY_AZIMUTH

SPEC = MosaicSpec(height=42, width=56)


def origins(rig) -> np.ndarray:
    """Camera center of every column of a mosaic."""
    return np.repeat(rig.agent_from_camera[list(SLOTS_BY_AZIMUTH), :3, 3], SPEC.width, axis=0)


def test_neighbors_in_the_mosaic_are_neighbors_around_the_car(real_rig):
    assert [SLOTS[slot] for slot in SLOTS_BY_AZIMUTH] == ["left", "front", "right", "rear"]
    rays = Mosaic(real_rig, SPEC).lines_of_sight
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    middle = rays[20:22].mean(axis=0)
    azimuth = np.rad2deg(np.unwrap(np.arctan2(middle[:, 0], middle[:, 2])))
    tiles = azimuth.reshape(4, SPEC.width)
    np.testing.assert_allclose(tiles.mean(axis=1), [-100, 0, 100, 180], atol=1)  # as the rig is built
    assert (np.diff(tiles, axis=1) > 0).all()  # to the right within each camera
    gaps = np.append(tiles[1:, 0], azimuth[0] + 360) - tiles[:, -1]
    # front and sides touch, a column's step apart; sides and rear overlap
    np.testing.assert_allclose(gaps, [1, 1, -19, -19], atol=0.1)


@pytest.mark.parametrize("surface", ["bowl", "sphere"])
def test_nominal_rays_meet_the_surface_where_lines_of_sight_do(real_rig, surface):
    mosaic = Mosaic(real_rig, MosaicSpec(SPEC.height, SPEC.width, surface, 30.0))
    origin = origins(real_rig)
    # distance along the nominal ray at which it passes the line of sight, and how far off it passes
    normal = np.cross(mosaic.lines_of_sight, mosaic.nominal_rays)
    apart = np.abs((origin * normal).sum(-1)) / np.maximum(np.linalg.norm(normal, axis=-1), 1e-9)
    crossing = np.linalg.norm(np.cross(origin, mosaic.lines_of_sight), axis=-1) / np.linalg.norm(normal, axis=-1)
    place = mosaic.nominal_rays * crossing[..., None]
    well = np.linalg.norm(normal, axis=-1) > 0.02  # not looking away from the center, where lines nearly coincide
    assert well.mean() > 0.4
    assert apart[well].max() < 1e-3
    on_sphere = np.abs(np.linalg.norm(place, axis=-1) - 30) < 0.05
    on_ground = np.abs(place[..., 1] - real_rig.ground_height_m) < 0.01
    assert (on_sphere | (on_ground if surface == "bowl" else False))[well].all()


def test_without_a_surface_pixels_look_along_their_lines(real_rig):
    mosaic = Mosaic(real_rig, MosaicSpec(SPEC.height, SPEC.width, "infinite"))
    np.testing.assert_array_equal(mosaic.nominal_rays, mosaic.lines_of_sight)


def test_every_seen_point_lies_on_the_line_of_its_pixel(real_rig):
    mosaic = Mosaic(real_rig, SPEC)
    points = np.random.default_rng(0).uniform((-20, -3, -20), (20, 1.5, 20), (5000, 3)).astype(np.float32)
    seen = see(points, real_rig)
    at = mosaic.pixels(seen)
    line = mosaic.lines_of_sight.reshape(-1, 3)[at]
    towards = seen.points - real_rig.agent_from_camera[seen.camera, :3, 3]
    cosine = (line * towards).sum(-1) / np.linalg.norm(towards, axis=-1)
    # half a pixel's diagonal, which is largest in the middle of the image
    half_pixel = np.hypot(400 / SPEC.width, 300 / SPEC.height) / real_rig.intrinsics[0, 0, 0]
    assert np.arccos(np.clip(cosine, -1, 1)).max() < 1.15 * half_pixel  # and up to one of the full image
    rays, ranges = mosaic.scattered_geometry(seen, np.eye(3), mosaic.nominal_rays)
    assert (ranges > 0).sum() == len(np.unique(at))
    assert np.array_equal(rays[ranges == 0], mosaic.nominal_rays[ranges == 0])
    kept = {tuple(row) for row in np.round(seen.points, 3)}
    assert {tuple(row) for row in np.round(rays[ranges > 0] * ranges[ranges > 0][:, None], 3)[:50]} <= kept


def test_of_points_in_one_pixel_the_nearest_to_the_camera_stays(real_rig):
    front = real_rig.agent_from_camera[0]
    direction = front[:3, 2]
    points = np.stack([front[:3, 3] + distance * direction for distance in (20, 8, 12)]).astype(np.float32)
    points += np.array([[0.02], [0.0], [0.03]], np.float32) * front[:3, 0]
    seen = see(points, real_rig)
    mosaic = Mosaic(real_rig, SPEC)
    rays, ranges = mosaic.scattered_geometry(seen, np.eye(3), mosaic.nominal_rays)
    (row, column), *others = np.argwhere(ranges > 0)
    assert not others
    np.testing.assert_allclose(rays[row, column] * ranges[row, column], points[1], atol=1e-4)


def test_nearest_pixels_and_tiles_show_the_same_landmark(real_rig):
    """A bright block of the left camera's image, in the tile and by the sources of the mosaic's pixels."""
    images = np.zeros((4, 600, 800, 3), np.uint8)
    images[1, 300:360, 200:280] = 255
    picture = joined(draw_tiles(images, SPEC))
    nearest = Mosaic(real_rig, SPEC).nearest
    by_source = images[..., 0].reshape(4, -1)[nearest.winner, nearest.source]
    for found in (picture[..., 0] > 127, by_source > 127):
        rows, columns = np.nonzero(found)
        np.testing.assert_allclose([rows.mean() + 0.5, columns.mean() + 0.5], [330 * 0.07, 240 * 0.07], atol=0.3)
        assert len(rows) == pytest.approx(60 * 80 * 0.07**2, rel=0.2)


@pytest.mark.parametrize("size", [(210, 280), (42, 56), (600, 800), (700, 840)])
def test_tiles_are_what_an_area_filter_gives_up_to_its_kernel(size):
    noise = np.random.default_rng(0).integers(0, 256, (4, 30, 40, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (800, 600), interpolation=cv2.INTER_CUBIC) for image in noise])
    spec = MosaicSpec(*size)
    tiles = draw_tiles(images, spec)
    exact = np.stack([cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_AREA) for image in images])
    assert np.abs(tiles.astype(int) - exact).mean() < 3.5
    twice = draw_tiles(images, spec, np.array([1.0, 2.0, 0.5, 1.0]))
    np.testing.assert_array_equal(twice[[0, 3]], tiles[[0, 3]])
    np.testing.assert_array_equal(twice[1], np.minimum(2 * tiles[1].astype(int), 255))
