"""Shapes: closed outwards, textured upright, measured in tiles."""

import numpy as np
import pytest

from coopmap.synthetic.buildings import gable_roof
from coopmap.synthetic.cars import MODELS, SEDAN, car_surface
from coopmap.synthetic.materials import TILE, Material, TileAtlas, draw_tiles
from coopmap.synthetic.raycast import Caster
from coopmap.synthetic.surface import Surface, box, frustum_sides, lathe, merge, quads

WHITE = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "shape",
    [
        box((-2, -1, 2, 1), -1, 1, WHITE),
        lathe([(0, 2), (1, 1), (1, -1), (0, -2)], 8, WHITE),
        gable_roof((-3, -1, 3, 1), 0, 2, WHITE, WHITE),
        gable_roof((-1, -3, 1, 3), 0, 2, WHITE, WHITE),
        quads(frustum_sides((-2, -2, 2, 2), (-1, -1, 1, 1), -1, 1), Material.PLAIN, WHITE),
    ],
)
def test_faces_of_convex_shapes_turn_outwards(shape: Surface) -> None:
    a, b, c = np.moveaxis(shape.triangles, 1, 0)
    outwards = np.einsum("fi,fi->f", np.cross(b - a, c - a), shape.triangles.mean(axis=1) - [0, 0, 0.1])
    assert outwards.min() > 0


def test_box_has_the_area_of_its_faces_without_the_floor() -> None:
    corners = box((0, 0, 4, 3), 0, 2, WHITE).triangles
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(4 * 3 + 2 * (4 + 3) * 2)


def test_texture_of_walls_starts_at_the_top() -> None:
    wall = quads(frustum_sides((0, 0, 4, 3), (0, 0, 4, 3), 0, 2), Material.HOUSE, WHITE, (2, 5))
    top = wall.triangles[..., 2] == 2
    assert set(wall.uv[top][:, 1]) == {0.0}
    assert set(wall.uv[~top][:, 1]) == {5.0}


def test_cars_fill_their_bounding_boxes() -> None:
    for model in MODELS:
        corners = car_surface(model, (1.0, 0.0, 0.0)).triangles.reshape(-1, 3)
        np.testing.assert_allclose(corners.max(axis=0), [*model.extent[:2], model.height], atol=0.05)
        np.testing.assert_allclose(corners.min(axis=0), [-model.extent[0], -model.extent[1], 0.0], atol=0.05)


def test_paint_colors_the_body_but_not_the_wheels() -> None:
    color = car_surface(SEDAN, (1.0, 0.0, 0.0)).color
    assert (color == [1.0, 0.0, 0.0]).all(axis=1).any()
    assert (color == 0.06).all(axis=1).any()


def test_merging_nothing_gives_nothing() -> None:
    assert len(merge([]).triangles) == 0


def test_rays_miss_nothing_and_nothing_blocks_an_empty_scene() -> None:
    empty = Caster(merge([]).triangles)
    hits = empty.first_hits(np.zeros(3), np.eye(3))
    assert not np.isfinite(hits.distance).any()
    assert not empty.blocked(np.zeros((2, 3)), np.array([0.0, 0.0, 1.0])).any()


def test_distance_counts_lengths_of_the_direction_vector() -> None:
    caster = Caster(box((4, -1, 6, 1), -1, 1, WHITE).triangles)
    direction = np.array([[1.0, 0.1, 0.2], [2.0, 0.2, 0.4], [-1.0, 0.0, 0.0]])
    hits = caster.first_hits(np.zeros(3), direction)
    np.testing.assert_allclose(hits.distance, [4.0, 2.0, np.inf])
    nearer = caster.first_hits(np.zeros(3), direction, nearer_than=np.array([3.9, 2.1, 9.0]))
    assert (nearer.triangle >= 0).tolist() == [False, True, False]


def test_coarse_mip_levels_hold_the_mean_of_a_tile() -> None:
    atlas = TileAtlas(draw_tiles(np.random.default_rng(0)))
    v, u = np.mgrid[0:TILE, 0:TILE].reshape(2, -1) / TILE + 0.5 / TILE
    material = np.full(TILE * TILE, int(Material.CHECKER))
    fine = atlas.lookup(material, u, v, np.full(TILE * TILE, 1e-6))
    coarse = atlas.lookup(material, u, v, np.full(TILE * TILE, 1e6))
    assert fine[:, 0].std() > 0.4
    np.testing.assert_allclose(coarse, np.broadcast_to(fine.mean(axis=0), coarse.shape), atol=1e-4)
