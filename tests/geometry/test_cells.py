"""Numbering of cells and their parts."""

import math

import pytest
import torch

from coopmap.geometry.cells import at_centers, at_part_centers, cell_angle, compare, neighbors, repeated, take

from ..rooms import panorama_rays


def test_centers_and_parts_in_order():
    """Pixels numbered row by row; cells of 4 x 4 pixels, parts of 2 x 2."""
    maps = torch.arange(8 * 12).view(1, 1, 8, 12)
    assert at_centers(maps, 4).flatten().tolist() == [26, 30, 34, 74, 78, 82]
    parts = at_part_centers(maps, 4)
    assert parts.shape == (1, 1, 6, 4)
    assert parts[0, 0, 0].tolist() == [13, 15, 37, 39]
    assert parts[0, 0, 4].tolist() == [65, 67, 89, 91]


@pytest.mark.parametrize("rows", [1, 4])
def test_cells_are_as_far_apart_as_their_neighbors(rows: int):
    rays = panorama_rays(8 * rows, 256)[None, None]
    expected = math.pi / 2 / rows if rows > 1 else 2 * math.pi / 32
    assert cell_angle(rays, 8).item() == pytest.approx(expected, rel=0.01)


def test_neighbors_join_the_ends_of_a_row_and_stay_in_their_view():
    grid = (2, 5)
    first, in_second_view = neighbors(torch.tensor([0, 13]), grid)
    assert first.tolist() == [4, 0, 1, 4, 0, 1, 9, 5, 6]
    assert in_second_view.tolist() == [12, 13, 14, 12, 13, 14, 17, 18, 19]


def test_of_repeated_neighbors_that_nearest_to_the_center_counts():
    grid = (2, 5)
    first, last = repeated(neighbors(torch.tensor([2, 17]), grid)).int().tolist()
    assert first == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert last == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    narrow = repeated(neighbors(torch.tensor([2]), (3, 2)))[0].int().tolist()  # left and right are one
    assert narrow == [0, 0, 1, 0, 0, 1, 0, 0, 1]
    alone = repeated(neighbors(torch.tensor([0]), (1, 1)))[0].int().tolist()
    assert alone == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_values_of_some_cells_and_products_with_their_parts():
    values = torch.arange(2 * 3 * 4).view(2, 3, 4)
    cells = torch.tensor([[[3, 0], [1, 1], [2, 3]], [[0, 0], [3, 2], [1, 0]]])
    assert take(values, cells).tolist() == [[[3, 0], [5, 5], [10, 11]], [[12, 12], [19, 18], [21, 20]]]
    generator = torch.Generator().manual_seed(0)
    keys, query = torch.randn(2, 3, 4, 5, 6, generator=generator), torch.randn(2, 3, 2, 6, generator=generator)
    around = neighbors(cells, (1, 4))
    found = compare(query, keys, around)
    assert found.shape == (2, 3, 2, 9 * 5)
    assert found[..., :15].isneginf().all()
    torch.testing.assert_close(found[1, 2, 0, 15:20], keys[1, 2, 0] @ query[1, 2, 0])
    torch.testing.assert_close(found[1, 2, 0, 20:25], keys[1, 2, 1] @ query[1, 2, 0])
